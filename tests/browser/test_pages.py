"""What people really see: a short run of the tutorial in TensorBoard, and the page of a replayed episode.

The figures of the documentation are taken here: `ARTEFACTS=docs/figures make test-browser`.
"""

import contextlib
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "allenact/main.py", "gym_mujoco_tutorial", "-b", "projects/tutorials", "-m", "1", "-s", "0"]
SHIPPED = ["projects/gym_baselines/checkpoints/ant-modern.pt", "--experiment", "gym_mujoco_ant_ppo"]
SHIPPED += ["-b", "projects/gym_baselines/experiments/mujoco"]
PATIENCE_MS = 60_000

pytestmark = pytest.mark.browser


def run(*command):
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout


@pytest.fixture(scope="module")
def short_run(browser, tmp_path_factory):
    """The output folder of the README's commands, shortened."""
    out = tmp_path_factory.mktemp("run") / "experiment_output"
    options = ["-o", str(out), "-e", "--config_kwargs", "configs/gym_mujoco/smoke.json"]
    run(*COMMAND, *options)
    (checkpoints,) = (out / "checkpoints" / "GymMuJoCoTutorial").iterdir()
    run(*COMMAND, *options, "--eval", "--checkpoint", str(checkpoints))
    return out


@contextlib.contextmanager
def tensorboard(folder):
    """Serves a folder, as a user does who stands beside it, on a free port of this machine; gives the address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name, "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = []
    try:
        for line in server.stderr:
            said.append(line)
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            if address:
                yield address[0]
                return
        raise AssertionError("TensorBoard did not start:\n" + "".join(said))
    finally:
        server.terminate()
        server.wait(10)
        server.stderr.close()


def look(element):
    """Returns what is on the screen there, [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def assert_moves(element, seconds=10.0):
    first, deadline = look(element), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (np.abs(look(element) - first).max(axis=-1) > 40).mean() > 0.001:
            return
    raise AssertionError("nothing moves")


def test_tensorboard_shows_curves_and_a_moving_ant(short_run, web_page, artefacts):
    with tensorboard(short_run) as address:
        web_page.goto(f"{address}#scalars")
        web_page.locator("tf-tag-filterer input").fill("(train|valid)-metrics/(reward|ep_length)")
        # With it, two points that are far from 0 are both called outliers and not shown.
        web_page.get_by_text("Ignore outliers in chart scaling").click()
        for tag in ("train-metrics/reward", "train-metrics/ep_length", "valid-metrics/reward"):
            chart = web_page.locator("tf-scalar-card", has_text=tag).first
            chart.wait_for(timeout=PATIENCE_MS)
            chart.scroll_into_view_if_needed()
            web_page.wait_for_timeout(1500)  # for the curve to be drawn
            red, _, blue = np.moveaxis(look(chart), -1, 0)  # the first run is orange, buttons are blue
            assert (red - blue > 100).sum() > 50, f"no curve of {tag}"
        web_page.screenshot(path=artefacts / "tensorboard_scalars.png")

        web_page.goto(f"{address}#images")
        web_page.reload()
        video = web_page.locator("tf-image-loader img").first
        video.wait_for(timeout=PATIENCE_MS)
        source = web_page.request.get(address + video.get_attribute("src")).body()
        assert Image.open(io.BytesIO(source)).n_frames == 20
        assert_moves(video)
        web_page.screenshot(path=artefacts / "tensorboard_images.png")

        web_page.goto(f"{address}#text")
        web_page.reload()
        web_page.get_by_text("GymMuJoCoTutorialExperimentConfig").first.wait_for(timeout=PATIENCE_MS)


def test_the_evaluation_left_a_video_of_the_moving_ant(short_run):
    import imageio_ffmpeg

    videos = sorted((short_run / "videos").rglob("*.mp4"))
    assert [re.search(r"test_episode_vid_group0__steps_(\d+)__random\d+", file.name)[1] for file in videos] == [
        "000000001024",
        "000000002048",
    ]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", videos[-1], "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True)
    for expected in (b"Video: h264", b"yuv420p", b"320x240", b"30 fps"):
        assert expected in decoded.stderr
    pictures = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, 240, 320, 3).astype(int)
    assert len(pictures) == 20
    assert np.abs(pictures[0] - pictures[-1]).max() > 100


def test_replay_page_plays_without_a_network(short_run, web_page, artefacts, tmp_path):
    checkpoint = max((short_run / "checkpoints").rglob("*.pt"))
    said = run(
        sys.executable, "scripts/replay.py", str(checkpoint), "--max_steps", "2", "-o", str(tmp_path / "own.html")
    )
    assert said.startswith("2 steps, return "), "the experiment is found from the run's own record"

    page = tmp_path / "replay.html"
    said = run(sys.executable, "scripts/replay.py", *SHIPPED, "--max_steps", "200", "-o", str(page))
    assert said.startswith("200 steps, return ")
    requests = []
    web_page.on("request", lambda request: requests.append(request.url))
    web_page.context.set_offline(True)
    web_page.goto(page.as_uri())
    web_page.locator("#speed").select_option("0.25")  # so that even a busy machine is not at the end too soon
    web_page.wait_for_function("window.replay.frame > 3", timeout=PATIENCE_MS)  # it plays by itself
    assert requests == [page.as_uri()]
    assert "WebGL" not in web_page.locator("#title").inner_text(), "the motion is not drawn"

    web_page.locator("#play").click()
    paused = web_page.evaluate("window.replay.frame")
    web_page.wait_for_timeout(300)
    assert web_page.evaluate("window.replay.frame") == paused
    web_page.locator("#scrub").fill("50")
    assert web_page.locator("#now").inner_text().startswith("step 51 of 200, 2.50 s")

    view = web_page.locator("#view")
    before = look(view)
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 100
    view.hover()
    web_page.mouse.down()
    web_page.mouse.move(800, 250)
    web_page.mouse.up()
    assert (look(view) != before).any(axis=-1).mean() > 0.05  # turned
    web_page.keyboard.press("ArrowRight")
    assert web_page.evaluate("window.replay.frame") == 51
    box = web_page.locator("#traces").bounding_box()
    web_page.mouse.click(box["x"] + box["width"] - 15, box["y"] + 30)
    assert web_page.evaluate("window.replay.frame") == 199
    ink, *_ = np.moveaxis(look(web_page.locator("#traces")), -1, 0)
    assert (ink < 100).sum() > 500, "no curves"
    web_page.locator("#play").click()  # at the end, it begins again
    web_page.wait_for_function("window.replay.frame > 1 && window.replay.frame < 50", timeout=PATIENCE_MS)
    web_page.locator("#play").click()
    assert requests == [page.as_uri()]
    web_page.screenshot(path=artefacts / "replay.png")
