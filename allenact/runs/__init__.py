"""A run as files and processes: where it writes, who follows its workers, what a terminal shows, how it goes on."""
