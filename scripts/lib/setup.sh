# Makes a checkout ready to run: system packages, a virtual environment from the lock file, the guest image.
# Source it, then call `set_up`. The second time takes well under a second, because a stamp records what was done.
# Works from any folder, without a terminal, and twice at the same time (the second run waits for the first).

root="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)"
venv="$root/.venv"
state="$root/.state"
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

install_system_packages() {
    [ -x "$root/scripts/lib/system_packages" ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 ||
            give_up "system packages are needed, and you are neither root nor have sudo" \
                "run this once as root: $root/scripts/lib/system_packages"
        if sudo -n true 2>/dev/null; then
            as_root=(sudo -n)
        elif [ -t 0 ]; then
            say "sudo may ask for your password to install system packages"
            as_root=(sudo)
            sudo -v || give_up "sudo was refused" "run this once as root: $root/scripts/lib/system_packages"
        else
            give_up "system packages are needed, and sudo wants a password that cannot be asked for here" \
                "run this once as root: $root/scripts/lib/system_packages"
        fi
    fi
    step "system packages (QEMU, libvirt, build tools)" \
        "check that this machine is online and that 'apt-get update' works, then run this again" \
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$root/scripts/lib/system_packages"
}

make_environment() {
    local python
    python="$(find_python)" ||
        give_up "no Python between 3.11 and 3.$newest_minor was found (python3 is $(python3 --version 2>&1 || true))" \
            "install one, e.g. apt-get install python3 python3-venv, or name it: PYTHON=/path/to/python3.12 $0"
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        give_up "$python cannot make virtual environments" "apt-get install python3-venv"
    # An environment that was moved, or made by another Python, is replaced; one that fits is only brought up to date.
    if ! "$venv/bin/python" -c "import sys; sys.exit(sys.prefix != '$venv')" >/dev/null 2>&1 ||
        ! head -n 3 -- "$venv/bin/pip" 2>/dev/null | grep -qF -- "$venv/"; then
        step "virtual environment with $("$python" --version)" "remove $venv and run this again" \
            "$python" -m venv --clear "$venv"
    fi
    local offline="check that this machine is online (pip must reach a package index), then run this again"
    step "packages of the lock file" "$offline" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --require-hashes \
        --requirement "$root/requirements.lock"
    step "XenoNode itself" "$offline" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --editable "$root"
}

build_image() {
    [ -x "$root/scripts/build_guest_image" ] || return 0
    step "guest image" \
        "check that this machine is online (the distribution's kernel package is fetched), then run this again" \
        build_image_into "$state/image.folder"
}

build_image_into() { # the builder prints where the image is: remembered, so that a removed image is noticed
    "$venv/bin/python" "$root/scripts/build_guest_image" >"$1"
}

set_up() {
    mkdir -p -- "$state" || give_up "$root cannot be written" "clone the repository where you may write"
    local want image_want system_want="none" # seen by the functions called from here
    want="$(fingerprint)"
    if [ -e "$root/scripts/lib/system_packages" ]; then
        # The distribution's release tells another machine, or another container, on the same checkout.
        system_want="$(cat -- "$root/scripts/lib/system_packages" /etc/os-release 2>/dev/null | sha256sum)"
        command -v qemu-system-x86_64 >/dev/null 2>&1 || system_want="missing $system_want"
    fi
    image_want="$(cat -- "$root"/hypervisor/guest_image*.py "$root/scripts/build_guest_image" 2>/dev/null | sha256sum)"
    if ready; then return 0; fi
    exec 9>"$state/setup.lock"
    if ! flock -n 9; then
        say "another set-up of this checkout is running; waiting for it"
        flock 9
    fi
    if ! ready; then
        : >"$state/setup.log"
        if ! stamped system "$system_want"; then
            install_system_packages
            stamp system "${system_want#missing }"
        fi
        if ! python_ready; then
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
    stamped system "$system_want" && python_ready && image_ready
}

python_ready() {
    stamped python "$want" && [ -x "$venv/bin/python" ] && [ -x "$venv/bin/xenonode" ]
}

image_ready() {
    stamped image "$image_want" && [ -e "$(cat -- "$state/image.folder" 2>/dev/null)" ]
}
