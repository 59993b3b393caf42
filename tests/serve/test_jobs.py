"""Jobs in the form of OGC API - Processes, from the request to the result."""

import base64
import io
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serve.images import png, waves, write_tif
from tests.serve.serving import Serving, wait_until

EXECUTION = "/processes/segment/execution"


def finished(service: Serving, job: str) -> dict[str, Any]:
    """The status of a job when it has ended."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(service.client.get(f"/jobs/{job}").json())
        return found["status"] not in ("accepted", "running")

    wait_until(ended)
    return found


def request(**inputs: Any) -> dict[str, Any]:
    return {"inputs": {"image": {"value": base64.b64encode(png()).decode(), "mediaType": "image/png"}, **inputs}}


def test_a_job_from_beginning_to_end(service: Serving, large: bytes) -> None:
    answer = service.post(f"{EXECUTION}?smooth=3&views=8", large, "image/tiff", Prefer="respond-async")
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['jobID']}"
    assert (job["processID"], job["type"], len(job["jobID"])) == ("segment", "process", 32)
    early = service.client.get(f"/jobs/{job['jobID']}/results")
    assert early.json()["type"].endswith("result-not-ready") or early.status_code == 200
    seen = [job["progress"]]

    def ended() -> bool:
        status = service.client.get(f"/jobs/{job['jobID']}").json()
        seen.append(status["progress"])
        return bool(status["status"] == "successful")

    wait_until(ended)
    assert seen == sorted(seen)
    assert seen[-1] == 100
    assert len(set(seen)) > 2, seen
    result = service.client.get(f"/jobs/{job['jobID']}/results")
    assert result.content == service.post("/predict?smooth=3&views=8", large, "image/tiff").content
    part = service.client.get(f"/jobs/{job['jobID']}/results", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, result.content[:4])
    assert re.fullmatch("[0-9a-f]{32}", job["jobID"]) and service.client.get("/jobs").status_code == 404  # no list
    assert service.client.delete(f"/jobs/{job['jobID']}").json()["status"] == "dismissed"
    for path in (f"/jobs/{job['jobID']}", f"/jobs/{job['jobID']}/results"):
        assert service.client.get(path).json()["type"].endswith("no-such-job")
    wait_until(lambda: service.files() == [])


def test_parts_of_a_result(service: Serving) -> None:
    """Parts that are there; a problem for those that are not; and all of it for a header that is no range of bytes."""
    job = service.post(EXECUTION, png(), "image/png", Prefer="respond-async").json()["jobID"]
    assert finished(service, job)["status"] == "successful"
    place = f"/jobs/{job}/results"
    whole = service.client.get(place).content
    for asked, part in {"bytes=1-3": whole[1:4], "bytes=-5": whole[-5:], "Bytes=9-": whole[9:]}.items():
        answer = service.client.get(place, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, part)
    assert service.client.get(place, headers={"Range": "bytes=0-1, 4-5"}).status_code == 206
    for asked in (
        "bytes=abc",
        "bytes=5-2",
        "items=0-1",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=0-1,x",
        "bytes=" + "9" * 99,
    ):
        answer = service.client.get(place, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (200, whole), asked
    for asked in ("bytes=999999999-", "bytes=-0", f"bytes={len(whole)}-"):
        answer = service.client.get(place, headers={"Range": asked})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(whole)}")
        assert answer.headers["content-type"] == "application/problem+json"
        assert asked in answer.json()["detail"]
    service.client.delete(f"/jobs/{job}")
    wait_until(lambda: service.files() == [])


def test_a_request_in_json(service: Serving) -> None:
    """At once and as a job, as a file and inside a document: the same classes each time."""
    truth = waves(70, 80).argmax(axis=0)
    raw = service.post(EXECUTION, json.dumps(request()), "application/json")
    assert raw.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(raw.content))), truth)
    wanted = {**request(), "outputs": {"result": {"format": {"mediaType": "image/tiff"}}}, "response": "document"}
    found = service.post(EXECUTION, json.dumps(wanted), "application/json").json()["result"]
    assert (found["encoding"], found["mediaType"]) == ("base64", "image/tiff; application=geotiff")
    tif = service.post("/predict?f=tif", png()).content
    assert base64.b64decode(found["value"], validate=True) == tif
    job = service.post(EXECUTION, json.dumps(wanted), "application/json", Prefer="respond-async").json()["jobID"]
    assert finished(service, job)["status"] == "successful"
    assert service.client.get(f"/jobs/{job}/results").json()["result"] == found
    polygons = {**request(simplify="2px"), "response": "document"}
    polygons["outputs"] = {"result": {"format": {"mediaType": "application/geo+json"}}}
    found = service.post(EXECUTION, json.dumps(polygons), "application/json").json()["result"]
    assert found["value"] == service.post("/predict?f=geojson&simplify=2px", png()).json()
    assert "encoding" not in found
    service.client.delete(f"/jobs/{job}")


def test_a_job_that_fails(service: Serving) -> None:
    job = service.post(f"{EXECUTION}?bands=7,8,9", png(), "image/png", Prefer="respond-async").json()["jobID"]
    status = finished(service, job)
    assert (status["status"], "band" in status["message"]) == ("failed", True)
    wait_until(lambda: service.files() == [])  # the image is of no use any more
    answer = service.client.get(f"/jobs/{job}/results")
    assert (answer.status_code, answer.json()["detail"]) == (422, status["message"])
    service.client.delete(f"/jobs/{job}")


def test_the_oldest_job_makes_room(service: Serving) -> None:
    """The service keeps 4."""
    jobs = []
    for _ in range(6):
        jobs.append(service.post(EXECUTION, png(), "image/png", Prefer="respond-async").json()["jobID"])
        finished(service, jobs[-1])
    kept = [job for job in jobs if service.client.get(f"/jobs/{job}").status_code == 200]
    assert kept == jobs[2:]
    for job in kept:
        service.client.delete(f"/jobs/{job}")
    wait_until(lambda: service.files() == [])


def test_jobs_that_wait_are_not_thrown_out(serving: Callable[..., Serving], large: bytes, tmp_path: Path) -> None:
    """With room for two, both large, a third is refused, and room is made by dismissing one that runs."""
    service = serving("--jobs=2", "--job-hours=0.0000001", "--request-seconds=0.2", "--queue=1")
    body = write_tif(tmp_path / "larger.tif", np.tile(waves(1300, 1300), (1, 2, 2)), tiled=True).read_bytes()
    jobs = [
        service.post(f"{EXECUTION}?views=8", body, "image/tiff", Prefer="respond-async").json()["jobID"]
        for _ in range(2)
    ]
    refused = service.post(EXECUTION, png(), "image/png", Prefer="respond-async")
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    wait_until(lambda: service.post("/predict", png()).status_code == 200)  # images at once do not wait for jobs
    wait_until(lambda: service.client.get(f"/jobs/{jobs[0]}").json()["status"] == "running")
    for job in jobs:
        assert service.client.delete(f"/jobs/{job}").json()["status"] == "dismissed"
    wait_until(lambda: service.files() == [])
    job = service.post(EXECUTION, png(), "image/png", Prefer="respond-async").json()["jobID"]
    wait_until(lambda: service.client.get(f"/jobs/{job}").status_code == 404)  # too old at once
    wait_until(lambda: service.files() == [])
    check_requests_that_end_early(service, large)
    assert service.end() == 0


def test_one_client_never_waits_for_itself(serving: Callable[..., Serving]) -> None:
    """With one place in the queue, a client that sends one image after the other is never refused."""
    service = serving("--queue=1")
    body = png()
    for document in 20 * ["raw"] + 20 * ["document"]:
        content = json.dumps({**request(), "response": document})
        assert service.post("/predict", body).status_code == 200
        assert service.post(EXECUTION, content, "application/json").status_code == 200
    assert service.client.get("/health").json() == {"status": "ready", "queue": 0}
    wait_until(lambda: service.files() == [])


def check_requests_that_end_early(service: Serving, large: bytes) -> None:
    """One takes too long, and from another the client goes, while the only place in the queue is taken."""
    answer = service.post("/predict?views=8", large, "image/tiff")
    assert answer.status_code == 503, answer.text
    assert re.search("as a job|in time", answer.json()["detail"])
    wait_until(lambda: service.files() == [])
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        head = f"POST /predict?views=8 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(large)}\r\n\r\n"
        connection.sendall(head.encode() + large[:-1])
        wait_until(lambda: service.client.get("/health").json()["status"] == "busy")
        full = service.post("/predict", png())
        assert (full.status_code, "Retry-After" in full.headers) == (503, True)
    wait_until(lambda: service.client.get("/health").json() == {"status": "ready", "queue": 0})
    wait_until(lambda: service.files() == [])
    assert ": 499, " in service.log


@pytest.mark.parametrize("path", ["/conformance", "/processes", "/processes/segment", "/"])
def test_links_lead_somewhere(path: str, service: Serving) -> None:
    found = service.client.get(path).json()
    for link in found.get("links", []):
        assert service.client.get(link["href"]).status_code == 200, link


def test_the_process_names_every_parameter_and_class(service: Serving) -> None:
    found = service.client.get("/processes/segment").json()
    assert set(found["inputs"]) == {
        "image", "bands", "scale", "resolution", "views", "smooth", "min_area", "simplify", "square", "confidence",
    }  # fmt: skip
    assert found["inputs"]["smooth"]["schema"] == {"type": "integer", "minimum": 3, "maximum": 255}
    assert "0 Building" in found["outputs"]["result"]["description"]
