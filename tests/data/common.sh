# For tests of `data prepare`: sourced with the program as $1; in an empty folder with small sources in sources/.
# shellcheck shell=bash
# shellcheck source=../mpi/ranks_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../mpi/ranks_common.sh"
make_sources=$(dirname "$sources")/data/make_sources
"$make_sources" write "$work/sources"
s=$work/sources

# prepare_on RANKS FOLDER KEY=VALUE...: output in log.txt
prepare_on() { must_on "$1" data prepare base.yaml --set "data.prepared=$work/$2" "${@:3}"; }
# same_folders A B
same_folders() { diff -r "$1" "$2" >differences.txt || fail "$1 and $2 differ: $(head -3 differences.txt)"; }
printf 'parallel: {threads: 1}\n' >base.yaml
