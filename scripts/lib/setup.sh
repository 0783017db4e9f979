# Makes a checkout ready to run: system packages, a virtual environment from the lock file, the guest image.
# Source it, then call `set_up`. The second time takes well under a second, because a stamp records what was done.
# Works from any folder, without a terminal, and twice at the same time (the second run waits for the first).

root="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)"
venv="$root/.venv"
state="$root/.state"
online="check that this machine is online (apt and pip must reach their packages), then run this again"
newest_minor=13 # Python 3.11 to 3.13 are supported: see setup.cfg and the lock file

say() { printf 'set-up: %s\n' "$*" >&2; }

give_up() { # what happened, what to do
    printf 'set-up: error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'set-up: do this: %s\n' "$2" >&2
    exit 1
}

# Run a long step quietly; on failure show the end of its log.
step() { # title, next step on failure, command...
    local title="$1" next="$2" log
    shift 2
    log="$state/setup.log"
    say "$title"
    printf '\n== %s\n' "$title" >>"$log"
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 15 -- "$log" | sed 's/^/    /' >&2
        give_up "$title: failed; the whole log is $log" "$next"
    fi
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $newest_minor))" \
                >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Everything that the virtual environment depends on, and where it lies: an environment cannot be moved.
fingerprint() {
    {
        printf '%s\n' "$root" "${PYTHON:-}"
        cat -- "$root/requirements.lock" "$root/setup.cfg" "$root/pyproject.toml" "$root/scripts/lib/setup.sh"
    } | sha256sum | cut -d ' ' -f 1
}

stamped() { # name, fingerprint
    [ "$(cat -- "$state/$1.stamp" 2>/dev/null)" = "$2" ]
}

stamp() { # name, fingerprint
    printf '%s\n' "$2" >"$state/$1.stamp.new" && mv -f -- "$state/$1.stamp.new" "$state/$1.stamp"
}

as_root() { # command...
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif ! command -v sudo >/dev/null 2>&1; then
        printf 'you are neither root nor have sudo; run this as root: %s\n' "$*" >&2
        return 1
    elif sudo -v 2>/dev/null; then # asks on the terminal, if there is one; without one it fails rather than hangs
        sudo "$@"
    else
        printf 'sudo did not let this through; run this as root: %s\n' "$*" >&2
        return 1
    fi
}

apt_install() { # packages...
    command -v apt-get >/dev/null 2>&1 || {
        printf 'apt-get is not here; install these by hand: %s\n' "$*" >&2
        return 1
    }
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends)
    as_root "${install[@]}" "$@" || { as_root apt-get -q update && as_root "${install[@]}" "$@"; }
}

# Python itself, and what Debian keeps apart from it: making environments, and headers to build libvirt's bindings.
install_python() {
    local python version missing=()
    if python="$(find_python)"; then
        version="$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
        "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || missing+=("$version-venv")
        "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
            missing+=("$version-dev")
        case "$(readlink -f -- "$python")" in
        /usr/bin/*) ;;
        *) [ "${#missing[@]}" -eq 0 ] || give_up "$python lacks what $version-venv and $version-dev give" \
            "build it anew with ensurepip and headers, or choose another: PYTHON=/usr/bin/python3 $0" ;;
        esac
    else
        missing=(python3 python3-venv python3-dev)
    fi
    [ "${#missing[@]}" -eq 0 ] || step "Python (${missing[*]})" "$online" apt_install "${missing[@]}"
}

install_system_packages() {
    # Asked on every run, since another machine or container may see the same checkout; it takes no time if all is there.
    system_complete "$root/scripts/lib/system_packages" || step "system packages (QEMU, libvirt, build tools)" \
        "$online; without sudo, run this once as root: $root/scripts/lib/system_packages" \
        "$root/scripts/lib/system_packages"
}

# Whether nothing is missing: the list is the other script's own, read without installing anything.
system_complete() { # script
    (
        . "$1"
        while IFS=: read -r file _; do [ -e "$file" ] || exit 1; done < <(_system_wanted)
        getent passwd libvirt-qemu >/dev/null
    )
}

make_environment() {
    local python
    python="$(find_python)" ||
        give_up "no Python between 3.11 and 3.$newest_minor was found (python3 is $(python3 --version 2>&1 || true))" \
            "install one, e.g. apt-get install python3 python3-venv, or name it: PYTHON=/path/to/python3.12 $0"
    # An environment that was moved, or made by another Python, is replaced; one that fits is only brought up to date.
    if ! "$venv/bin/python" -c "import sys; sys.exit(sys.prefix != '$venv')" >/dev/null 2>&1 ||
        ! head -n 3 -- "$venv/bin/pip" 2>/dev/null | grep -qF -- "$venv/"; then
        step "virtual environment with $("$python" --version)" "remove $venv and run this again" \
            "$python" -m venv --clear "$venv"
    fi
    step "packages of the lock file" "$online" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --require-hashes \
        --requirement "$root/requirements.lock"
    step "XenoNode itself" "$online" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --editable "$root"
}

build_image() {
    [ -x "$root/scripts/build_guest_image" ] || return 0
    step "guest image" \
        "$online" \
        build_image_into "$state/image.folder"
}

build_image_into() { # the builder prints where the image is: remembered, so that a removed image is noticed
    "$venv/bin/python" "$root/scripts/build_guest_image" >"$1"
}

set_up() {
    mkdir -p -- "$state" || give_up "$root cannot be written" "clone the repository where you may write"
    local want image_want # seen by the functions called from here
    want="$(fingerprint)"
    image_want="$(cat -- "$root"/hypervisor/guest_image*.py "$root/scripts/build_guest_image" 2>/dev/null | sha256sum)"
    if ready; then return 0; fi
    exec 9>"$state/setup.lock"
    if ! flock -n 9; then
        say "another set-up of this checkout is running; waiting for it"
        flock 9
    fi
    if ! ready; then
        : >"$state/setup.log"
        install_system_packages
        if ! python_ready; then
            install_python
            make_environment
            stamp python "$want"
        fi
        if ! image_ready; then
            build_image
            stamp image "$image_want"
        fi
        say "ready"
    fi
    exec 9>&-
}

ready() {
    python_ready && image_ready && system_complete "$root/scripts/lib/system_packages"
}

python_ready() {
    stamped python "$want" && [ -x "$venv/bin/python" ] && [ -x "$venv/bin/xenonode" ]
}

image_ready() {
    stamped image "$image_want" && [ -e "$(cat -- "$state/image.folder" 2>/dev/null)" ]
}
