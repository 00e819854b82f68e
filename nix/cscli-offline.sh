#!/usr/bin/env bash
# cscli as the engine's unit runs it before a start: what needs the internet may fail, and the engine still starts,
# with the hub items that it has. Anything else, and any call by a person, is cscli's own. REAL_CSCLI names that.
set -uo pipefail

"$REAL_CSCLI" "$@"
status=$?
if ((status == 0)) || [[ -z ${INVOCATION_ID:-} ]]; then exit "$status"; fi

case " $* " in
  *' hub update '*)
    # Without an index the engine does not start at all; an empty one is what a new installation begins with.
    options=("$@") kept=()
    while ((${#options[@]} > 0)) && [[ ${options[0]} != hub ]]; do
      kept+=("${options[0]}")
      options=("${options[@]:1}")
    done
    index=$("$REAL_CSCLI" "${kept[@]}" config show --key Config.ConfigPaths.HubIndexFile 2>/dev/null)
    [[ -z $index || -s $index ]] || printf '{}' >"$index"
    ;;
  *' hub upgrade '* | *' capi register '* | *' console enroll '* | *' install '*) ;;
  *) exit "$status" ;;
esac
echo 'cscli failed; without a connection to the hub the engine starts with what it has' >&2
