#!/bin/sh
# An aarch64 TVM RPC server on an x86 Linux machine: a Debian arm64 userland under qemu, with the wheels a Pi would have.
# It proves the way to a board where none is at hand; its times are those of an emulator and say nothing about a board.
set -eu

usage() {
    cat <<USAGE
usage: $0 setup DIR                                     make the userland in DIR (about 1 GB, some minutes)
       $0 start DIR --tracker HOST:PORT [--key KEY]     set up if needed, then run a server until stopped
                    [--port PORT] [--cpu QEMU_CPU]      default: key rpi4, port 9090, qemu's own CPU model
       $0 stop DIR                                      end the servers of DIR and their workers, unmount, unregister
Needs root and the Debian packages debootstrap and qemu-user-static. DIR may be deleted after stop.
USAGE
    exit 2
}

fail() {
    echo "$0: $*" >&2
    exit 1
}

[ $# -ge 2 ] || usage
command=$1
root=$(realpath -m "$2")
shift 2
[ "$root" != / ] || fail "DIR is /; give a folder of its own, such as /var/lib/enx-arm64"
here=$(cd "$(dirname "$0")" && pwd)
binfmt=/proc/sys/fs/binfmt_misc
entry=$binfmt/enx-aarch64
tracker= key=rpi4 port=9090 cpu=
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --tracker) tracker=$2 ;;
        --key) key=$2 ;;
        --port) port=$2 ;;
        --cpu) cpu=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[ "$(id -u)" = 0 ] || fail "needs root (chroot, binfmt_misc); try: sudo $0 $command $root"

# The kernel starts qemu for arm64 programs; F opens qemu now, so that it is found from inside the userland too.
register() {
    [ -e "$binfmt/register" ] || mount -t binfmt_misc binfmt_misc "$binfmt" ||
        fail "cannot mount binfmt_misc on $binfmt; a container needs --privileged, or load the module on the host"
    for other in "$binfmt"/*; do
        if [ "$(basename "$other")" != register ] && [ "$(basename "$other")" != status ] &&
            grep -q '^interpreter.*qemu-aarch64' "$other" && grep -q '^flags:.*F' "$other"; then
            return
        fi
    done
    qemu=$(command -v qemu-aarch64-static) || fail "qemu-aarch64-static not found; apt install qemu-user-static"
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":enx-aarch64:M::$magic:$mask:$qemu:OCF" >"$binfmt/register" ||
        fail "the kernel refused to register $qemu for aarch64 programs"
}

pins() {
    for package in apache-tvm apache-tvm-ffi numpy psutil cloudpickle tornado; do
        pin=$(sed -n "s/^ *\"\($package==[^\";]*\)\".*/\1/p" "$here/../pyproject.toml")
        [ -n "$pin" ] || fail "no pin of $package in $here/../pyproject.toml"
        echo "$pin"
    done
}

setup() {
    register
    if [ ! -e "$root/.userland-complete" ]; then
        debootstrap=$(command -v debootstrap) || fail "debootstrap not found; apt install debootstrap"
        [ ! -e "$root" ] || [ -z "$(ls -A "$root")" ] ||
            fail "$root exists and holds no finished userland; delete it, or give an empty folder"
        echo "installing a Debian 12 arm64 userland in $root"
        "$debootstrap" --arch=arm64 --variant=minbase --include=python3,python3-venv bookworm "$root" >"$root.log" 2>&1 ||
            fail "debootstrap failed; see $root.log, delete $root and try again"
        mv "$root.log" "$root/debootstrap.log"
        touch "$root/.userland-complete"
    fi
    wanted=$(pins)
    if [ "$(cat "$root/opt/pins" 2>/dev/null)" != "$wanted" ]; then
        echo "installing" $wanted
        rm -rf "$root/opt/wheels" "$root/opt/venv" "$root/opt/pins"
        # Downloaded by this machine's pip, at its speed; the userland needs no network.
        python=${PYTHON:-$here/../.venv/bin/python}
        [ -x "$python" ] || python=python3
        "$python" -m pip download -q --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --abi abi3 \
            --abi none --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
            --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any \
            -d "$root/opt/wheels" $wanted || fail "pip could not download the aarch64 wheels of:" $wanted
        chroot "$root" python3 -m venv /opt/venv
        chroot "$root" /opt/venv/bin/pip install -q --no-index --find-links /opt/wheels $wanted
        rm -rf "$root/opt/wheels"
        echo "$wanted" >"$root/opt/pins"
    fi
    chroot "$root" /opt/venv/bin/python -c 'import platform, tvm; print("TVM", tvm.__version__, "on", platform.machine())'
}

processes() {
    for proc in /proc/[0-9]*; do
        [ "$(readlink "$proc/root" 2>/dev/null)" != "$root" ] || basename "$proc"
    done
}

stop() {
    for signal in TERM KILL; do
        found=$(processes)
        [ -n "$found" ] || break
        echo "ending" $found
        kill -s "$signal" $found 2>/dev/null || true
        sleep 1
    done
    ! mountpoint -q "$root/proc" || umount "$root/proc"
    [ ! -e "$entry" ] || echo -1 >"$entry"
}

case $command in
    setup) setup ;;
    start)
        [ -n "$tracker" ] || fail "--tracker HOST:PORT is missing; start one with: python -m tvm.exec.rpc_tracker --port 9190"
        setup
        mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
        trap 'trap - INT TERM EXIT; stop' INT TERM EXIT
        [ -z "$cpu" ] || export QEMU_CPU="$cpu"
        # One thread: candidates are measured so, and TVM's pool must not make threads for each session.
        TVM_NUM_THREADS=1 chroot "$root" /opt/venv/bin/python -m tvm.exec.rpc_server \
            --tracker "$tracker" --key "$key" --port "$port" --port-end "$((port + 10))" &
        wait $!
        ;;
    stop) stop ;;
    *) usage ;;
esac
