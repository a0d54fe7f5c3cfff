"""The API's description (OpenAPI 3.1): what is sent, and every answer there is."""

from typing import Any

from portfolio_ops import __version__
from portfolio_ops.store.requests import NAME_MOST

_TEXT = {"type": "string"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_MOMENT = {"type": "string", "format": "date-time"}
_COUNT = {"type": "integer", "minimum": 0}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: dict[str, Any], headers: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = {"description": description, "content": {"application/json": {"schema": schema}}}
    return answer | ({"headers": headers} if headers else {})


_FAULT = _object({"success": {"const": False}, "message": _TEXT, "code": _TEXT}, {"error": _TEXT})
_BACKUP = _object({"id": _TEXT, "file": _TEXT, "bytes": _COUNT})
_MADE = {"success": {"const": True}, "message": _TEXT, "request": _TEXT, "output": _TEXT, "backup": _BACKUP}
_WAITS = {
    "success": {"const": True},
    "message": _TEXT,
    "request": _TEXT,
    "state": {"const": "waiting"},
    "statusUrl": _TEXT,
}
_NAME = {"galleryName": {"type": "string", "minLength": 1, "maxLength": NAME_MOST, "pattern": r"\S"}}
_SUMMARY = _object({"count": _COUNT, "retention": _TEXT, "latest": _TEXT, "latestAt": _MAYBE_TEXT})
_STATUS = _object(
    {
        "success": {"const": True},
        "backups": _object(
            {"daily": _SUMMARY, "social": _SUMMARY, "eventTriggered": _SUMMARY, "logsArchive": _SUMMARY}
        ),
    }
)
_ARTIFACT = _object(
    {
        "id": _TEXT,
        "kind": {"enum": ["daily", "social", "event", "logs", "wal"]},
        "file": _TEXT,
        "name": _MAYBE_TEXT,
        "taken": _MOMENT,
        "bytes": _COUNT,
        "contentBytes": _COUNT,
        "lastVerified": _MAYBE_TEXT,
        "keep": {"type": "boolean"},
        "reason": _TEXT,
    }
)
_BACKUPS = _object(
    {
        "success": {"const": True},
        "backups": {"type": "array", "items": _ARTIFACT},
        "problems": {"type": "array", "items": _object({"file": _TEXT, "reason": _TEXT})},
    }
)
_REQUEST = _object(
    {"success": {"const": True}, "request": _TEXT, "state": {"enum": ["waiting", "done", "failed"]}},
    {"output": _TEXT, "backup": _BACKUP, "error": _TEXT, "code": _TEXT},
)
_HEALTH = _object(
    {"success": {"type": "boolean"}, "status": {"enum": ["ok", "findings"]}},
    {"findings": {"type": "array", "items": _TEXT}},
)

_RETRY = {"Retry-After": {"description": "Seconds until there is a point in another try.", "schema": _COUNT}}
_LOCATION = {"Location": {"description": "Where to ask what became of it.", "schema": _TEXT}}
_TOO_MANY = {"429": _answer("Too many calls.", _ref("Fault"), _RETRY)}
_REFUSALS = {
    "401": _answer("A token is asked for, and there was none.", _ref("Fault")),
    "403": _answer("The token is wrong.", _ref("Fault")),
    **_TOO_MANY,
}
_TRIGGER_FAULTS = {
    "409": _answer("Another run, or a restore, holds what is needed (`BUSY`).", _ref("Fault")),
    "413": _answer("The body is larger than 64 KiB.", _ref("Fault")),
    "500": _answer("The backup failed (`BACKUP_ERROR`); it is tried again.", _ref("Fault")),
    **_REFUSALS,
}
_READ_FAULTS = {"500": _answer("It could not be found out (`STATUS_ERROR`).", _ref("Fault")), **_REFUSALS}
_OPEN: dict[str, list[str]] = {}

DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "portfolio-ops",
        "version": __version__,
        "description": "Backups of one site: ask for one, and see how they are. Where a token is configured, and over "
        "TCP always, each call but `/healthz` bears it.",
    },
    "security": [_OPEN, {"token": []}],
    "paths": {
        "/api/admin/backup-on-gallery-add": {
            "post": {
                "operationId": "backupOnGalleryAdd",
                "summary": "Back the database up because a gallery was added, and wait for it.",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {**_object(_NAME), "additionalProperties": True}}},
                },
                "responses": {
                    "200": _answer("It is made and verified.", _object(_MADE | _NAME)),
                    "202": _answer("It is still being made.", _object(_WAITS | _NAME), _LOCATION),
                    "400": _answer("There is no name, or it is none (`INVALID_REQUEST`).", _ref("Fault")),
                    **_TRIGGER_FAULTS,
                },
            }
        },
        "/api/admin/trigger-backup": {
            "post": {
                "operationId": "triggerBackup",
                "summary": "Make the daily backup now, and wait for it. A body is not needed.",
                "responses": {
                    "200": _answer("It is made and verified.", _object(_MADE)),
                    "202": _answer("It is still being made.", _object(_WAITS), _LOCATION),
                    **_TRIGGER_FAULTS,
                },
            }
        },
        "/api/admin/backup-requests/{id}": {
            "get": {
                "operationId": "backupRequest",
                "summary": "What became of a backup that was asked for within the last day.",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": _TEXT}],
                "responses": {
                    "200": _answer("It waits, is done, or failed and is tried again.", _REQUEST),
                    "404": _answer("Nothing is known of it.", _ref("Fault")),
                    **_READ_FAULTS,
                },
            }
        },
        "/api/admin/backup-status": {
            "get": {
                "operationId": "backupStatus",
                "summary": "How many backups there are, for how long they are kept, and when the latest was made.",
                "responses": {"200": _answer("Of each kind.", _STATUS), **_READ_FAULTS},
            }
        },
        "/api/admin/backups": {
            "get": {
                "operationId": "backups",
                "summary": "Every backup, oldest first, and why it is kept.",
                "responses": {"200": _answer("All of them.", _BACKUPS), **_READ_FAULTS},
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "description",
                "summary": "This description.",
                "responses": {"200": _answer("OpenAPI 3.1.", {"type": "object"}), **_REFUSALS},
            }
        },
        "/healthz": {
            "get": {
                "operationId": "health",
                "summary": "Whether all is well; what is not, for who may know.",
                "responses": {
                    "200": _answer("All is well.", _HEALTH),
                    "503": _answer("Something needs a person.", _HEALTH),
                    **_TOO_MANY,
                },
            }
        },
    },
    "components": {
        "schemas": {"Fault": _FAULT},
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
}
