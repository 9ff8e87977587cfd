#!/bin/sh
# onnxruntime_headers.sh FOLDER: the headers of ONNX Runtime, as Debian 13 has them; Debian 12 and the wheel have none.
# Nothing is installed, and what apt knows of this system stays as it is.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
# The first paragraph is the archive of the system, with its address and keys.
sed -e 's/^Suites:.*/Suites: trixie/' -e '/^$/q' /etc/apt/sources.list.d/debian.sources > "$work/trixie.sources"
cat > "$work/apt.conf" <<END
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/trixie.sources";
Dir::Etc::sourceparts "/dev/null";
APT::Sandbox::User "root";
END
export APT_CONFIG="$work/apt.conf"
apt-get update -qq
(cd "$work" && apt-get download -qq libonnxruntime-dev && dpkg -x libonnxruntime-dev_*.deb unpacked)
cp -r "$work/unpacked/usr/include/onnxruntime" "$1"
