import json
from pathlib import Path

import pytest

from gateway.ports import CannotStartError, check_port_free, free_port
from gateway.runfile import (
    MeshBusyError,
    MeshFile,
    MeshStatus,
    NoMeshError,
    RunFile,
    ServiceStatus,
    claim,
    find_mesh,
    read_run_files,
    read_status,
    write_json,
)

MESH = MeshFile(pid=1, gateway="127.0.0.1:8080", run_dir="/tmp/x", envoy_admin="unix:/tmp/x/envoy.sock", metrics="")


def test_a_state_folder_has_one_owner(tmp_path: Path) -> None:
    state = tmp_path / ".headrace"
    with claim(state):
        write_json(state / "mesh.json", MESH)
        assert find_mesh(state) == MESH
        with pytest.raises(MeshBusyError, match=r"process 1, gateway 127\.0\.0\.1:8080"), claim(state):
            pass
    with claim(state):
        pass


def test_what_a_dead_mesh_left_is_ignored(tmp_path: Path) -> None:
    state = tmp_path / ".headrace"
    with pytest.raises(NoMeshError, match="start one with `headrace up`"):
        find_mesh(state)
    with claim(state):
        pass
    write_json(state / "mesh.json", MESH)
    with pytest.raises(NoMeshError):
        find_mesh(state)
    with claim(state):
        assert not (state / "mesh.json").exists()


def test_files_read_as_they_were_written_and_others_are_left_alone(tmp_path: Path) -> None:
    run = RunFile("vision-0", 7, "unix:/x", "http://127.0.0.1:1/metrics")
    write_json(tmp_path / "vision-0.json", run)
    (tmp_path / "torn.json").write_text('{"name"')
    (tmp_path / "envoy-bootstrap.json").write_text(json.dumps({"node": {}}))
    status = MeshStatus(True, True, "", (ServiceStatus("vision-0", "unix:/x", True, {"double": "READY"}),), 0.5)
    assert read_status(tmp_path) is None
    write_json(tmp_path / "status.json", status)
    assert read_run_files(tmp_path) == [run]
    assert read_status(tmp_path) == status


def test_ports() -> None:
    listen = free_port("127.0.0.1:0")
    assert free_port(listen) == listen
    check_port_free(listen)
    with pytest.raises(CannotStartError, match=r"cannot listen on 192\.0\.2\.1:80: Cannot assign"):
        check_port_free("192.0.2.1:80")
    with pytest.raises(CannotStartError, match="no address of this machine"):
        check_port_free("no.such.host.invalid:80")
    with pytest.raises(CannotStartError, match="name an address of this machine"):
        free_port("192.0.2.1:0")
