"""What the service says of itself: landing page, conformance and process of OGC API - Processes."""

from typing import Any

from skystill import __version__
from skystill.predict.predictor import Predictor
from skystill.serve.kinds import KINDS, offered_forms
from skystill.serve.parameters import schemas

PROCESS = "segment"
_JSON = "application/json"
_CONFORMANCE = "http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf"
CONFORMS_TO = [f"{_CONFORMANCE}/{name}" for name in ("ogc-process-description", "json", "dismiss")]
"""Classes of the standard that hold in full. The class core does not: inputs by reference are refused on purpose."""


def _link(href: str, rel: str, title: str, media_type: str = _JSON) -> dict[str, str]:
    return {"href": href, "rel": rel, "type": media_type, "title": title}


def landing_page() -> dict[str, Any]:
    """Return the landing page."""
    openapi = "application/vnd.oai.openapi+json;version=3.1"
    rel = "http://www.opengis.net/def/rel/ogc/1.0"
    return {
        "title": "SkyStill",
        "description": "Segments aerial images: POST one to /predict, or as a job to /processes/segment/execution.",
        "links": [
            _link("/", "self", "this page"),
            _link("/openapi.json", "service-desc", "every address of the service", openapi),
            _link("/conformance", f"{rel}/conformance", "classes of OGC API - Processes that hold"),
            _link("/processes", f"{rel}/processes", "the process"),
        ],
    }


def process_summary() -> dict[str, Any]:
    """Return the summary of the process."""
    return {
        "id": PROCESS,
        "title": "Classes of an aerial image",
        "description": "Predicts the class of every pixel, as skystill predict.",
        "version": __version__,
        "jobControlOptions": ["sync-execute", "async-execute", "dismiss"],
        "outputTransmission": ["value"],
        "links": [_link(f"/processes/{PROCESS}", "self", "the description of the process")],
    }


def process_list() -> dict[str, Any]:
    """Return the list of processes. There is one."""
    return {"processes": [process_summary()], "links": [_link("/processes", "self", "this list")]}


def process_description(predictor: Predictor) -> dict[str, Any]:
    """Return the description of the process, with the classes and bands of the model."""
    spec = predictor.info.input_spec
    images = [
        {"type": "string", "contentEncoding": "base64", "contentMediaType": kind.media_types[0]} for kind in KINDS
    ]
    inputs: dict[str, Any] = {
        "image": {
            "title": "image",
            "description": f"An image inline, in base64. The model is fed {spec.labels} ({spec.dtype}).",
            "minOccurs": 1,
            "maxOccurs": 1,
            "schema": {"oneOf": images},
        }
    }
    for name, schema in schemas().items():
        about = {key: value for key, value in schema.items() if key != "description"}
        inputs[name] = {"title": name, "description": schema["description"], "minOccurs": 0, "schema": about}
    return {**process_summary(), "inputs": inputs, "outputs": {"result": _result(predictor)}}


def _result(predictor: Predictor) -> dict[str, Any]:
    names = ", ".join(f"{label} {name}" for label, name in enumerate(predictor.classes.names))
    results = [
        {"type": "object", "contentMediaType": form.media_type}
        if form.name == "geojson"
        else {"type": "string", "contentEncoding": "base64", "contentMediaType": form.media_type}
        for form in offered_forms()
    ]
    return {
        "title": "classes",
        "description": f"The class of each pixel ({names}; 255 no data), or polygons with their class.",
        "schema": {"oneOf": results},
    }
