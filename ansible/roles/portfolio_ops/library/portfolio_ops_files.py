"""Lay many small files of root's in one round trip: units and drop-ins, some sixty for a host with two sites."""

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: portfolio_ops_files
short_description: Lay and remove many small text files at once
description:
  - What M(ansible.builtin.copy) and M(ansible.builtin.file) do, for many files in one round trip.
  - The files are root's, of mode 0644. A folder that is missing is made, of mode 0755; only the last one of a path.
  - A file gets its name when it is whole.
options:
  files:
    description: What is to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where, absolute.
        type: path
        required: true
      content:
        description: The whole text.
        type: str
        required: true
  absent:
    description: Files that are not to be there. Their folders stay.
    type: list
    elements: path
    default: []
author:
  - The portfolio-ops developers
"""

EXAMPLES = r"""
- name: Tell a unit whose data it works on
  portfolio_ops_files:
    files:
      - path: /etc/systemd/system/portfolio-check@shop.service.d/10-portfolio-ops.conf
        content: "[Service]\nUser=1001\n"
"""

RETURN = r"""
paths:
  description: What was laid or removed.
  type: list
  elements: str
  returned: always
"""

_ARGUMENTS = {
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "path", "required": True}, "content": {"type": "str", "required": True}},
    },
    "absent": {"type": "list", "elements": "path", "default": []},
}


def main() -> None:
    """Answer with what changed, or in check mode would."""
    module = AnsibleModule(argument_spec=_ARGUMENTS, supports_check_mode=True)
    changes: list[dict[str, str]] = []
    try:
        for file in module.params["files"]:
            before = _text(Path(file["path"]))
            if _lay(module, Path(file["path"]), file["content"]):
                changes.append(_change(file["path"], before, file["content"]))
        for path in module.params["absent"]:
            if os.path.lexists(path):
                changes.append(_change(path, "there\n", ""))  # not what stands in it: it may be a secret
                if not module.check_mode:
                    Path(path).unlink()
    except OSError as error:
        module.fail_json(msg=f"cannot lay the files: {error}")
    module.exit_json(changed=bool(changes), paths=[change["after_header"] for change in changes], diff=changes)


def _lay(module: Any, path: Path, content: str) -> bool:
    """Bring one file to what it should be; gives whether it was something else."""
    if not path.parent.is_dir() and not module.check_mode:
        path.parent.mkdir()
        path.parent.chmod(0o755)
    changed = path.is_symlink() or _text(path) != content or not path.is_file()
    if changed and not module.check_mode:
        descriptor, temporary = tempfile.mkstemp(prefix=".ansible-", dir=path.parent)
        os.close(descriptor)
        Path(temporary).write_text(content, encoding="utf-8")
        module.atomic_move(temporary, str(path))
    if changed and module.check_mode:
        return True
    attributes = {"path": str(path), "owner": "root", "group": "root", "mode": "0644"}
    return bool(module.set_fs_attributes_if_different(module.load_file_common_arguments(attributes), changed))


def _text(path: Path) -> str:
    """What stands in a file; nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _change(path: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": path, "after_header": path, "before": before, "after": after}


if __name__ == "__main__":
    main()
