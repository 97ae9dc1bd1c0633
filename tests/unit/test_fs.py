"""Files: only regular ones, whole or not at all, with the operating system's errors in segq's words."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import segq
from segq._core.base.errors import DamagedError, NetworkFileSystemError, NotAQueueError, StorageError, UnsafeDirectoryError
from segq._core.system import fs
from segq._core.system.mapped import MappedFile

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:5 / /proc rw shared:2 - proc proc rw
30 21 0:40 / /mnt/far rw,relatime shared:9 - nfs4 server:/export rw
31 30 0:41 / /mnt/far/near rw,relatime - tmpfs tmpfs rw
32 21 0:42 / /mnt/with\\040space rw,relatime - cifs //server/share rw
33 21 0:43 / /mnt/farther rw,relatime - xfs /dev/sdb rw
34 21 0:44 / /home rw - ext4 /dev/sdc rw
35 21 0:45 / /home rw - fuse.sshfs host:/home rw
"""


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has MOUNTS mounted; every path exists."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    really_open = open

    def fake_open(path: Any, *arguments: Any, **options: Any) -> Any:
        return really_open(table if path == "/proc/self/mountinfo" else path, *arguments, **options)

    monkeypatch.setattr("builtins.open", fake_open)
    monkeypatch.setattr(os.path, "exists", lambda _path: True)
    monkeypatch.setattr(os.path, "realpath", lambda path: path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/q", "ext4"),
        ("/mnt/far/q", "nfs4"),
        ("/mnt/far", "nfs4"),
        ("/mnt/far/near/q", "tmpfs"),
        ("/mnt/farther/q", "xfs"),
        ("/mnt/with space/q", "cifs"),
        ("/home/me/q", "fuse.sshfs"),  # the later mount covers the earlier
    ],
)
@pytest.mark.usefixtures("mounts")
def test_the_file_system_of_a_path_is_that_of_its_innermost_last_mount(path: str, kind: str) -> None:
    assert fs.file_system_type(path) == kind


@pytest.mark.parametrize("path", ["/mnt/far/q", "/mnt/with space/q", "/home/me/q"])
@pytest.mark.usefixtures("mounts")
def test_a_network_file_system_is_refused_by_its_name(path: str) -> None:
    with pytest.raises(NetworkFileSystemError, match="allow_network_fs=True") as caught:
        fs.refuse_network(path)
    assert fs.file_system_type(path) in str(caught.value)


@pytest.mark.usefixtures("mounts")
def test_a_local_file_system_is_not_refused() -> None:
    fs.refuse_network("/mnt/far/near/q")


def test_a_queue_on_a_network_file_system_is_refused_unless_insisted_upon(
    queue_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fs, "file_system_type", lambda _path: "nfs4")
    with pytest.raises(segq.NetworkFileSystemError):
        segq.Queue(queue_path)
    assert not os.path.lexists(queue_path)
    with segq.Queue(queue_path, allow_network_fs=True) as q:
        q.put(1)
        assert q.get() == 1


def test_the_nearest_existing_parent_decides_for_a_path_that_does_not_exist(tmp_path: Path) -> None:
    assert fs.file_system_type(str(tmp_path / "not" / "there" / "yet")) == fs.file_system_type(str(tmp_path)) != ""


# --- regular files only ---


def unusual(path: Path, kind: str) -> str:
    target = path / "target"
    target.write_bytes(b"\0" * 8192)
    place = path / "place"
    match kind:
        case "link":
            place.symlink_to(target)
        case "dangling link":
            place.symlink_to(path / "nowhere")
        case "fifo":
            os.mkfifo(place)
        case "directory":
            place.mkdir()
        case "device":
            place.symlink_to("/dev/zero")
    return str(place)


KINDS = ["link", "dangling link", "fifo", "directory", "device"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DamagedError, match="not a regular file"):
        fs.read_file(unusual(tmp_path, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_regular_file_is_mapped(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DamagedError, match="not a regular file"):
        MappedFile.open(unusual(tmp_path, kind), 8)


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "directory"])
def test_a_queue_whose_queue_json_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "queue"
    path.mkdir()
    os.rename(unusual(tmp_path, kind), path / "queue.json")
    with pytest.raises(segq.QueueError):
        segq.Queue(str(path))


def test_a_file_that_is_too_short_to_map_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"\0" * 100)
    with pytest.raises(DamagedError, match="100 bytes"):
        MappedFile.open(str(tmp_path / "short"), 4096)


def test_a_link_in_the_place_of_a_mapped_file_is_never_followed_or_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "file").symlink_to(victim)
    with pytest.raises(StorageError):
        MappedFile.create(str(tmp_path / "file"), 4096, [(0, 4096)])
    assert victim.read_bytes() == b"precious"


# --- writing ---


def test_a_file_is_replaced_whole_and_no_temporary_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    fs.write_file(path, b"one")
    fs.write_file(path, b"two", durable=True)
    assert fs.read_file(path) == b"two"
    assert os.listdir(tmp_path) == ["file"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "file")
    fs.write_file(path, b"one")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        fs.write_file(path, b"two", durable=True)
    assert caught.value.errno == errno.ENOSPC
    assert fs.read_file(path) == b"one"
    assert os.listdir(tmp_path) == ["file"]


def test_a_mapped_file_is_shared_by_all_who_open_it_and_its_ranges_are_on_disk(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    one = MappedFile.create(path, 1 << 20, [(0, 4096), (65_536, 4096)])
    assert os.stat(path).st_blocks * 512 >= 8192
    other = MappedFile.open(path, 4096)
    one.words[3] = 2**63
    assert other.words[3] == 2**63
    assert other.halves[7] == 2**31
    assert other.same_file()
    os.rename(path, path + ".old")
    assert not other.same_file()


def test_a_closed_mapped_file_stays_readable_and_closes_its_descriptor(tmp_path: Path) -> None:
    file = MappedFile.create(str(tmp_path / "file"), 4096, [(0, 4096)])
    descriptor = file.descriptor
    file.close()
    file.close()
    file.words[1] = 5
    assert file.words[1] == 5
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_a_directory_held_open_is_followed_through_a_rename(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_bytes(b"x")
    directory = fs.Directory(str(tmp_path / "old"))
    os.rename(tmp_path / "old", tmp_path / "new")
    assert os.listdir(directory.path) == ["file"]
    directory.close()
    with pytest.raises(FileNotFoundError):
        fs.Directory(str(tmp_path / "old"))


# --- quarantine and removal ---


def test_quarantine_keeps_everything_that_comes_under_the_same_name(tmp_path: Path) -> None:
    places = []
    for text in (b"one", b"two", b"three"):
        (tmp_path / "ready_x").mkdir()
        (tmp_path / "ready_x" / "f").write_bytes(text)
        places.append(Path(fs.quarantine(str(tmp_path), "ready_x", f"because of {text!r}")))
    assert [(place / "f").read_bytes() for place in places] == [b"one", b"two", b"three"]
    assert all("because of" in Path(f"{place}.reason").read_text() for place in places)
    assert not (tmp_path / "ready_x").exists()


def test_bytes_go_to_quarantine_with_their_reason(tmp_path: Path) -> None:
    one = fs.quarantine_bytes(str(tmp_path), "item", b"bad", "no sense")
    two = fs.quarantine_bytes(str(tmp_path), "item", b"worse", "none either")
    assert (Path(one).read_bytes(), Path(two).read_bytes()) == (b"bad", b"worse")
    assert Path(one + ".reason").read_text() == "no sense\n"


def test_removing_a_tree_removes_links_and_not_what_they_lead_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(precious)
    fs.remove_tree(str(tmp_path / "tree"))
    fs.remove_tree(str(tmp_path / "tree"))
    assert (precious / "file").read_text() == "x"
    assert not (tmp_path / "tree").exists()


# --- modes ---


def test_directories_are_made_for_the_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    old = os.umask(0)
    try:
        with segq.Queue(str(path), segment_items=4) as q:
            q.put_many(range(9))
            q.put(1)
            q.get()
            found = {p: stat.S_IMODE(p.lstat().st_mode) for p in (path, *path.rglob("*"))}
    finally:
        os.umask(old)
    ours = {p: mode for p, mode in found.items() if not ("_" in p.parent.name and p.name not in ("ledger", "batch"))}
    assert {mode for p, mode in ours.items() if p.is_dir()} <= {0o700}
    assert {mode for p, mode in ours.items() if p.is_file()} <= {0o600}


def test_pickle_in_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    segq.Queue(str(path), serializer="pickle").close()
    path.chmod(0o777)
    with pytest.raises(UnsafeDirectoryError, match="chmod"):
        segq.Queue(str(path))
    path.chmod(0o755)
    segq.Queue(str(path)).close()


def test_a_new_pickle_queue_is_refused_in_an_existing_directory_that_others_can_write(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    path.mkdir()
    path.chmod(0o772)
    with pytest.raises(UnsafeDirectoryError):
        segq.Queue(str(path), serializer="pickle")
    assert os.listdir(path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_pickle_in_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    segq.Queue(str(path), serializer="pickle").close()
    os.chown(path, 12_345, 12_345)
    with pytest.raises(UnsafeDirectoryError, match="12345"):
        segq.Queue(str(path))


def test_a_path_that_is_a_file_is_no_place_for_a_queue(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(NotAQueueError, match="not a directory"):
        segq.Queue(str(place))
    assert place.read_text() == "mine"
