"""The kinds of journal entries, each with an id that never changes (journalctl MESSAGE_ID=..., `journalctl -x`).

`systemd/portfolio-ops.catalog` explains every one, with cause and cure. A new kind takes a new id from
`systemd-id128 new`; an id is never given to another meaning.
"""

from dataclasses import dataclass

CRITICAL, ERROR, WARNING, NOTICE, INFO = 2, 3, 4, 5, 6
"""Priorities, as in syslog(3)."""


@dataclass(frozen=True)
class Message:
    """A kind of entry: its 128-bit id in hex, and its priority."""

    id: str
    priority: int


BACKUP_PUBLISHED = Message("b526b926913f4c218b5ee1c6820ad0a1", INFO)
LOGS_ROTATED = Message("eda287a3b2ad49afadd6bef6912817c8", INFO)
NOTHING_TO_ROTATE = Message("171fddcf4b8f4872af3da9f550ef0abd", INFO)
LOG_REFUSED = Message("e60ade58a65f4949acf54f7afb97fb9a", ERROR)
LOSS_WINDOW = Message("2748e236595f47568cea58d4c6a3b601", WARNING)
WRITER_UNSEEN = Message("b51fd260019f42fc81edbf49274e0d00", NOTICE)
ROTATION_RECOVERED = Message("ac9fb117254441259a7b26ca49dae7d4", NOTICE)
JOB_FAILED = Message("c70b02e5bd064385914903aa8cbd6ee8", ERROR)
JOB_WAITING = Message("c9f6fd55de924b08bd0af2cd7427f8e5", NOTICE)
RUN_DIED = Message("dfa3861702ae4e5d86244433bcaaa9fc", WARNING)
PRUNED = Message("04d77361332b4beb99e8fd2e24ac33e9", INFO)
PRUNING_PUT_OFF = Message("74c4a1b17daf4ee78aabec7836ff4e9e", WARNING)
PRUNING_FAILED = Message("66151fcbe6434d838127006e5792d6fa", WARNING)
ARTIFACT_PROBLEM = Message("5fe8a70062dd41ecb4bb51233d2d6b26", WARNING)
CHECK_FAILED = Message("4fb924075c274eb98ceaba2802f66894", ERROR)
CHECK_RECOVERED = Message("ecbe94d86e63420a9f294d6a9b4a3acc", NOTICE)
ALERT = Message("8e14db9c144a4d58aa81adad21c1283a", CRITICAL)
SIDE_FILES_FOREIGN = Message("8ea234a40ed242e994ebd4cb29303c52", WARNING)
RESTORE_BEGUN = Message("edbcc538f02e4ea09f398843f6088a88", NOTICE)
RESTORED = Message("05cf00ee10a94a0e8732f598e41ec6c4", NOTICE)
RESTORE_FAILED = Message("e8919dee48264a4a8fa5b9699d9e0f76", ERROR)
RESTORE_RECOVERED = Message("ddb3cec1c998436eab9100f897a7f216", WARNING)
RAW_FILES_KEPT = Message("c74c25032e6c4dfb9c7aeb04fb5a7df3", WARNING)
ARTIFACT_BAD = Message("b0300b45e61a4e268384bcf1b016d6fb", CRITICAL)
DRILL_PASSED = Message("86925184e5ad42399cd78e7148fbe5a9", INFO)
DRILL_FAILED = Message("b5fd23fb32e6414e890de3d379f7b811", CRITICAL)
DRILL_INCONCLUSIVE = Message("18ed601435484c54b3067d1b87b0a6e3", WARNING)
SOCIAL_RESTORED = Message("c71f825a46e54dd0a8c9fc40cf26f90d", NOTICE)
RECOVERED = Message("09f681ada9ca4f76bb7c35198204589b", NOTICE)
RECEIVER_UNREACHED = Message("3a6c77c56da84eb681bf9ff9944f5719", WARNING)
TIMELINE_BEGUN = Message("d1539376070b4cef854be8e8c8550228", NOTICE)
TIMELINE_ENDED = Message("4b9413fbc14d4e468f11790bab0aaf54", WARNING)
ARCHIVE_FAILED = Message("f9272f0c67484864a7d182ee7f6f92fe", ERROR)
ARCHIVE_RESUMED = Message("353674dc35d44a53b8334b0a99d1d76b", INFO)
WRITERS_HELD = Message("9dbd0f65b3af421dafb047b1be265054", WARNING)
WAL_DAMAGED = Message("c4aa520d73b642109b5f29c96325a5e0", CRITICAL)
INCREMENTS_MERGED = Message("bf0e940faed9516564ebcf672a8d0bc7", INFO)
ARCHIVE_DAMAGED = Message("2a48523601ce4636bd4f15ababa01ad1", CRITICAL)
MERGE_FAILED = Message("84172893ce4c8f00ece28bd6868744d3", WARNING)
GALLERIES_WATCHED = Message("f24f1d0db85248c2883d940eab5081fe", NOTICE)
GALLERIES_UNWATCHED = Message("11697cc66b604b8cae5c723782ef8e2f", WARNING)
GALLERY_WAITS = Message("90e3efc4b5c2427093a440b413db6fa6", WARNING)
TRIGGER_REFUSED = Message("8c9eb52f4dd94cc4af43781f32008df2", WARNING)
API_ANSWERED = Message("661a02c988134ab2b0f664593aa55b2d", INFO)
API_FAULT = Message("d63d824d14e042019b3aab3f275527bb", ERROR)
