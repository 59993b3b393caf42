"""The OpenAPI description of the service, made from the tables and models that it runs by."""

from typing import Any

from pydantic.json_schema import models_json_schema

from skystill import __version__
from skystill.serve import descriptions
from skystill.serve.execution import Execute
from skystill.serve.jobs import STATUSES
from skystill.serve.kinds import ANY, KINDS, offered_forms
from skystill.serve.metrics import MEDIA_TYPE as METRICS_TYPE
from skystill.serve.parameters import query_schema
from skystill.serve.problems import MEDIA_TYPE as PROBLEM_TYPE
from skystill.serve.problems import TITLES

_REFUSED = (400, 403, 406, 408, 413, 415, 422, 500, 503)
_BYTES = {"type": "string", "contentMediaType": "application/octet-stream"}


def openapi() -> dict[str, Any]:
    """Return the description as an object of JSON."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SkyStill",
            "version": __version__,
            "summary": "Segments aerial images.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            "/": {"get": _get("A page with a form for browsers, links for programs.", "LandingPage", html=True)},
            "/conformance": {"get": _get("Classes of OGC API - Processes that hold.", "Conformance")},
            "/openapi.json": {"get": _get("This description.", "Any")},
            "/health": {"get": _health("Whether the service takes images.")},
            "/health/live": {"get": _get("Whether the service runs.", "Health")},
            "/metrics": {"get": _metrics()},
            "/predict": {"post": _predict()},
            "/processes": {"get": _get("The processes. There is one.", "ProcessList")},
            f"/processes/{descriptions.PROCESS}": {"get": _get("The description of the process.", "Process")},
            f"/processes/{descriptions.PROCESS}/execution": {"post": _execute()},
            "/jobs/{job}": {"parameters": [_job_id()], "get": _job("The status of a job."), "delete": _dismiss()},
            "/jobs/{job}/results": {"parameters": [_job_id()], "get": _results()},
        },
        "components": {"schemas": _schemas()},
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problems(*statuses: int) -> dict[str, Any]:
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[str, Any] = {}
    for status in statuses:
        found[str(status)] = {"description": f"{TITLES[status]}.", "content": content}
        if status == 503:
            about = {"description": "Seconds to wait before the next try.", "schema": {"type": "string"}}
            found["503"]["headers"] = {"Retry-After": about}
    return found


def _get(about: str, schema: str, html: bool = False) -> dict[str, Any]:
    content = _json(schema) | ({"text/html": {"schema": {"type": "string"}}} if html else {})
    return {"summary": about, "responses": {"200": {"description": about, "content": content}}}


def _health(about: str) -> dict[str, Any]:
    return {
        "summary": about,
        "responses": {str(status): {"description": about, "content": _json("Health")} for status in (200, 503)},
    }


def _metrics() -> dict[str, Any]:
    about = "Counters for Prometheus."
    content = {METRICS_TYPE: {"schema": {"type": "string"}}}
    return {"summary": about, "responses": {"200": {"description": about, "content": content}}}


def _files() -> dict[str, Any]:
    """The result as a file, in each form."""
    return {
        form.media_type: {"schema": {"type": "object"} if form.name == "geojson" else _BYTES}
        for form in offered_forms()
    }


def _images() -> dict[str, Any]:
    return {media_type: {"schema": _BYTES} for media_type in (*(kind.media_types[0] for kind in KINDS), ANY)}


def _query() -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, "description": schema["description"],
         "schema": {key: value for key, value in schema.items() if key != "description"}}
        for name, schema in query_schema().items()
    ]  # fmt: skip


def _predict() -> dict[str, Any]:
    about = "The result for the image in the body."
    note = {"description": "How the image was read; one header for each note.", "schema": {"type": "string"}}
    done = {"description": about, "content": _files(), "headers": {"SkyStill-Note": note}}
    return {
        "summary": about,
        "parameters": _query(),
        "requestBody": {"required": True, "content": _images(), "description": "The bytes of an image."},
        "responses": {"200": done, **_problems(*_REFUSED)},
    }


def _execute() -> dict[str, Any]:
    about = "Executes the process, at once or as a job."
    prefer = {
        "name": "Prefer", "in": "header", "required": False, "description": "respond-async makes it a job.",
        "schema": {"type": "string"},
    }  # fmt: skip
    place = {"Location": {"description": "The address of the job.", "schema": {"type": "string"}}}
    created = {"description": "The job.", "content": _json("Status"), "headers": place}
    done = {"description": "The result.", "content": {**_files(), **_json("Document")}}
    only_images = "Parameters for an image as the body; those of a request in JSON stand in its inputs."
    return {
        "summary": about,
        "description": only_images,
        "parameters": [prefer, *_query()],
        "requestBody": {"required": True, "content": {**_json("Execute"), **_images()}},
        "responses": {"200": done, "201": created, **_problems(*_REFUSED)},
    }


def _job_id() -> dict[str, Any]:
    return {"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}


def _job(about: str) -> dict[str, Any]:
    responses = {"200": {"description": about, "content": _json("Status")}, **_problems(404)}
    return {"summary": about, "responses": responses}


def _dismiss() -> dict[str, Any]:
    found = _job("Ends a job, and deletes its files.")
    found["responses"].update(_problems(403))
    return found


def _results() -> dict[str, Any]:
    about = "The result of a job, or the problem that it failed with."
    done = {"description": about, "content": {**_files(), **_json("Document")}}
    part = {"description": "The part that the header Range asks for.", "content": _files()}
    return {"summary": about, "responses": {"200": done, "206": part, **_problems(404, 413, 416, 422, 500, 503)}}


def _schemas() -> dict[str, Any]:
    text, links = {"type": "string"}, {"type": "array", "items": {"$ref": "#/components/schemas/Link"}}
    texts = {"type": "array", "items": text}

    def strict(required: list[str], **properties: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}

    summary = {
        "id": text, "title": text, "description": text, "version": text, "jobControlOptions": texts,
        "outputTransmission": texts, "links": links,
    }  # fmt: skip
    time = {"type": "string", "format": "date-time"}
    times = dict.fromkeys(("created", "started", "finished", "updated"), time)
    status = strict(
        ["processID", "type", "jobID", "status", "created", "progress", "links"], processID=text, type=text, jobID=text,
        status={"enum": [*STATUSES, "dismissed"]}, message=text, **times,
        progress={"type": "integer", "minimum": 0, "maximum": 100}, links=links,
    )  # fmt: skip
    _, execute = models_json_schema([(Execute, "validation")], ref_template="#/components/schemas/{model}")
    return {
        **execute["$defs"],
        "Any": {"type": "object"},
        "Link": strict(["href", "rel", "title"], href=text, rel=text, type=text, title=text),
        "LandingPage": strict(["title", "links"], title=text, description=text, links=links),
        "Conformance": strict(["conformsTo"], conformsTo=texts),
        "Health": strict(
            ["status"], status={"enum": ["ready", "busy", "closing", "full", "live"]}, queue={"type": "integer"}
        ),
        "ProcessSummary": strict(list(summary), **summary),
        "ProcessList": strict(
            ["processes", "links"], links=links,
            processes={"type": "array", "items": {"$ref": "#/components/schemas/ProcessSummary"}},
        ),
        "Process": strict(
            [*summary, "inputs", "outputs"], **summary, inputs={"type": "object"}, outputs={"type": "object"}
        ),
        "Status": status,
        "Document": strict(["result"], result={"type": "object", "required": ["value", "mediaType"]}),
        "Problem": strict(
            ["type", "title", "status", "detail"], type=text, title=text, status={"type": "integer"}, detail=text
        ),
    }  # fmt: skip
