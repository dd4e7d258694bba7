# shellcheck shell=bash
# What the client tests share: running checks, daemons started and ended by name, waiting with a limit, cleaning up.
# Everything that a test makes is in the temporary folder $work; every process has a pid file there or names the folder on
# its command line. So what is left behind can be found, and is found (cleanup, nothing_is_left_behind).

readonly DAEMON_START_SECONDS=30
readonly DAEMON_STOP_SECONDS=20
readonly LOG_LINES_SHOWN=40

work=$(mktemp -d "${TMPDIR:-/tmp}/stopover-clients.XXXXXX")
passed=0
failed=0
client=                 # whose checks run now
client_broken=          # set when one of them has failed: what follows builds on it
declare -gA log_sizes=() # how long each daemon's log was when the check that runs began

# Descriptor 3 is where people read; a check's own output is shown only if it fails.
exec 3>&1

# --- checks -----------------------------------------------------------------------------------------------------------

# begin NAME: the checks that follow belong to this client.
begin() {
  client=$1
  client_broken=
}

# check FUNCTION: runs it, in a subshell in which any failing command fails the check. Its name is the sentence shown.
# After a failure the client's other checks count as failed too: they would only repeat it.
check() {
  local sentence="$client: ${1//_/ }" log="$work/check.log" status started=$EPOCHREALTIME
  if [[ -n $client_broken ]]; then
    failed=$((failed + 1))
    echo "FAIL  $sentence (not run, since a check before it failed)" >&3
    return
  fi
  logs_begin
  # Not in an if or &&: bash would switch errexit off inside.
  set +e
  (
    set -eE
    trap 'echo "failed: $BASH_COMMAND (${BASH_SOURCE##*/}:$LINENO)" >&2' ERR
    "$1"
  ) >"$log" 2>&1 </dev/null
  status=$?
  set -e
  if [[ $status == 0 ]]; then
    passed=$((passed + 1))
    echo "ok    $sentence ($(seconds_since "$started") s)" >&3
  else
    failed=$((failed + 1))
    client_broken=yes
    echo "FAIL  $sentence" >&3
    {
      cat "$log"
      show_daemon_logs
    } | sed 's/^/      | /' >&3
  fi
}

# note TEXT: information beside the checks, on which nothing depends.
note() {
  echo "      $*" >&3
}

# fail TEXT: ends the check.
fail() {
  echo "failed: $*" >&2
  exit 1
}

# equal WHAT EXPECTED ACTUAL
equal() {
  [[ $2 == "$3" ]] || fail "$1: expected '$2', found '$3'"
}

# at_most WHAT LIMIT ACTUAL
at_most() {
  (($3 <= $2)) || fail "$1: expected at most $2, found $3"
}

seconds_since() {
  echo "$1 $EPOCHREALTIME" | awk '{ printf "%.1f", $2 - $1 }'
}

# need COMMAND...: every tool must be there. One that is missing ends the run: nothing is skipped.
need() {
  local command lacking=()
  for command in "$@"; do
    command -v "$command" >/dev/null || lacking+=("$command")
  done
  if [[ ${#lacking[@]} != 0 ]]; then
    echo "FAIL  these commands are missing: ${lacking[*]} (tests/install brings them)" >&3
    exit 1
  fi
}

# --- daemons ----------------------------------------------------------------------------------------------------------

# start NAME COMMAND...: runs it in the background in a session of its own, its output in $work/NAME.log.
start() {
  local name=$1
  shift
  setsid "$@" >>"$work/$name.log" 2>&1 </dev/null &
  echo $! >"$work/$name.pid"
}

# await NAME COMMAND...: returns when the command succeeds; fails when the daemon NAME ends or takes too long.
await() {
  local name=$1 deadline=$((SECONDS + DAEMON_START_SECONDS))
  shift
  until "$@" >/dev/null 2>&1; do
    alive "$(<"$work/$name.pid")" || fail "$name ended while it was starting"
    ((SECONDS < deadline)) || fail "$name did not answer within $DAEMON_START_SECONDS s"
    sleep 0.1
  done
  # Not another one's answer on a port that ours could not have.
  alive "$(<"$work/$name.pid")" || fail "$name ended while it was starting"
}

# stop NAME: asks it to end, waits, and says so when it had to be killed.
stop() {
  local pid deadline=$((SECONDS + DAEMON_STOP_SECONDS))
  pid=$(<"$work/$1.pid")
  rm -f "$work/$1.pid"
  kill -TERM "$pid" 2>/dev/null || true
  while alive "$pid"; do
    if ((SECONDS >= deadline)); then
      kill -KILL "$pid" 2>/dev/null || true
      fail "$1 did not end within $DAEMON_STOP_SECONDS s of SIGTERM"
    fi
    sleep 0.1
  done
}

stop_all() {
  local file name
  for file in "$work"/*.pid; do
    [[ -e $file ]] || continue
    name=${file##*/}
    stop "${name%.pid}"
  done
}

# A process that has ended and waits for its parent to notice ("Z") is not alive.
alive() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  [[ ${stat##*) } != Z* ]]
}

# logs_begin, show_daemon_logs: what the daemons have logged in between, the last lines of it.
logs_begin() {
  local file
  log_sizes=()
  for file in "$work"/*.log; do
    [[ ! -e $file ]] || log_sizes[$file]=$(stat -c %s "$file")
  done
}

show_daemon_logs() {
  local file new
  for file in "$work"/*.log; do
    [[ $file != */check.log ]] || continue
    new=$(tail -c "+$((${log_sizes[$file]:-0} + 1))" "$file" | tail -n "$LOG_LINES_SHOWN")
    [[ -z $new ]] || printf -- '--- %s:\n%s\n' "${file##*/}" "$new"
  done
}

# Prints a port of 127.0.0.1 on which nobody listens, below the range from which the kernel takes ports for itself.
free_port() {
  local port
  while true; do
    port=$((20000 + RANDOM % 10000))
    if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

# --- cleaning up ------------------------------------------------------------------------------------------------------

# The processes, other than ended ones, whose command line names our folder.
our_processes() {
  local folder pid
  for folder in /proc/[0-9]*; do
    pid=${folder#/proc/}
    if tr '\0' ' ' 2>/dev/null <"$folder/cmdline" | grep -qF "$work/" && alive "$pid"; then
      echo "$pid"
    fi
  done
}

# What is mounted under our folder, the deepest first.
our_mounts() {
  awk -v prefix="$work/" 'index($5, prefix) == 1 { print $5 }' /proc/self/mountinfo | sort -r
}

nothing_is_left_behind() {
  stop_all
  local pid
  for pid in $(our_processes); do
    echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
  done
  equal "processes left" "" "$(our_processes)"
  equal "mounts left" "" "$(our_mounts)"
}

# Runs at every end of the script, also after Ctrl-C or in mid-check.
cleanup() {
  set +e
  local item
  for item in "$work"/*.pid; do
    item=${item##*/}
    (stop "${item%.pid}") 2>/dev/null
  done
  for item in $(our_processes); do
    kill -KILL "$item" 2>/dev/null
  done
  our_mounts | while read -r item; do
    umount -l "$item"
  done
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
