#!/bin/sh
# Everything that `make demo` and `make test` need: Debian's packages, then a virtual environment whose packages are
# pinned by hash. Does nothing when nothing has changed. Usage: scripts/setup.sh run|dev
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}
case $kind in run|dev) ;; *) echo "usage: scripts/setup.sh run|dev" >&2; exit 3 ;; esac

# What each package is for: docs/dependencies.md
packages="runc skopeo docker-registry erofs-utils busybox-static golang-github-containers-common ca-certificates libatomic1 mount"
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    [ "$(id -u)" = 0 ] && packages="$packages python3" || { echo "adyton: needs Python 3.11 or later (apt-get install python3)" >&2; exit 1; }
}
"$python" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
[ "$kind" = dev ] && packages="$packages git make swtpm tpm2-tools softhsm2 postgresql chromium curl"

missing=
for package in $packages; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "adyton: these Debian packages are missing; install them, then run the same command again:" >&2
        echo "    sudo apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    echo "adyton: installing Debian packages:$missing"
    # No service of these packages may start by itself: not now (policy-rc.d), not at the next boot (mask).
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
        trap 'rm -f $policy' EXIT INT TERM
    fi
    case $missing in *docker-registry*)
        mkdir -p /etc/systemd/system
        [ -e /etc/systemd/system/docker-registry.service ] || ln -s /dev/null /etc/systemd/system/docker-registry.service ;;
    esac
    case $missing in *postgresql*)  # no cluster, no service: the tests make their own as they need them
        mkdir -p /etc/systemd/system /etc/postgresql-common
        [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
        [ -e /etc/systemd/system/postgresql.service ] || ln -s /dev/null /etc/systemd/system/postgresql.service ;;
    esac
    log=$(mktemp)
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } > "$log" 2>&1 \
        || { tail -n 20 "$log" >&2; echo "adyton: apt-get failed; its whole output is in $log" >&2; exit 1; }
    rm -f "$log"
fi

stamp=.venv/.adyton-$kind
want=$(cat requirements/$kind.txt pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ] || ! .venv/bin/python -c 'import adyton' 2>/dev/null; then
    echo "adyton: setting up .venv ($kind)"
    [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null || "$python" -m venv --clear .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/$kind.txt
    # The package itself runs from the checkout: a path file and a start script, no build step.
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$PWD/src" > "$site/adyton.pth"
    printf '#!%s\nimport sys\nfrom adyton.cli import main\nsys.exit(main())\n' "$PWD/.venv/bin/python" > .venv/bin/adyton
    chmod 755 .venv/bin/adyton
    echo "$want" > "$stamp"
fi
