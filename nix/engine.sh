#!/usr/bin/env bash
# lapidary-engine: the key under which Lapidary pulls from this host's engine, made and replaced with cscli, and the
# engine's enrolment in CrowdSec's console. A mistake here cuts Lapidary off from its engine: a key is only deleted
# once another one is known to be in use.
#
# lapidary-engine register NAME MAX_AGE_SECONDS   a key younger than that is in $STATE_DIRECTORY/current/key
# lapidary-engine retire NAME                     deletes the earlier ones; run it when the broker has the current one
# lapidary-engine enrol NAME TOKEN_FILE           joins the console
# CSCLI names the program; it must run as the engine's user.
set -euo pipefail
umask 077
cd "$STATE_DIRECTORY"
cscli=${CSCLI:-cscli}

# How long the broker may go on pulling with the key before: its requests on the way, its retries.
overlap_seconds=3600

names() { "$cscli" bouncers list -o json | jq -r '.[]? | .name'; }
age_seconds() { echo $(($(date +%s) - $(stat -L -c %Y current/key))); }

register() {
  local current next
  current=$(readlink current) || current=''
  if [[ -n $current && -s current/key ]] && names | grep -qxF "$current" && (($(age_seconds) < $2)); then
    return
  fi
  next=$1-$(date +%s%N)
  mkdir "$next"
  "$cscli" bouncers add "$next" -o raw >"$next/key"
  [[ $(<"$next/key") =~ ^[[:graph:]]{16,200}$ ]] || {
    echo 'cscli printed no key' >&2
    return 1
  }
  sync "$next/key"
  # One rename makes name and key current together.
  ln -s "$next" current.new
  mv -T current.new current
  echo "made the key of $next"
}

retire() {
  local current name
  current=$(readlink current)
  (($(age_seconds) >= overlap_seconds)) || return 0
  for name in $(names); do
    if [[ $name =~ ^$1-[0-9]+$ && $name != "$current" ]]; then
      "$cscli" bouncers delete "$name"
      rm -rf "./$name"
    fi
  done
}

enrol() {
  [[ ! -e enrolled ]] || return 0
  # cscli takes the token as an argument and in no other way; it asks to join, and opens nothing.
  "$cscli" console enroll --name "$1" "$(<"$2")" && touch enrolled
}

rm -f current.new
case ${1:-} in
  register) register "$2" "$3" ;;
  retire) retire "$2" ;;
  enrol) enrol "$2" "$3" ;;
  *)
    echo 'usage: lapidary-engine register|retire|enrol NAME [...]' >&2
    exit 64
    ;;
esac
