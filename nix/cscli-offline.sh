#!/usr/bin/env bash
# cscli as the engine's units run it before a start, where CSCLI_OFFLINE_START is set: what CrowdSec's servers are asked
# for may fail, which is said, and the engine starts with what it has; an item of the hub only while the hub is out of
# reach. Anything else, and any other call, is cscli's own. REAL_CSCLI names that.
set -uo pipefail

"$REAL_CSCLI" "$@"
status=$?
if ((status == 0)) || [[ -z ${CSCLI_OFFLINE_START:-} ]]; then exit "$status"; fi

# The options before the command, and the command: what comes after it may be an enrolment key.
options=()
for word in "$@"; do
  case $word in
    appsec-configs | appsec-rules | capi | collections | console | contexts | hub | parsers | postoverflows | scenarios) break ;;
  esac
  options+=("$word")
done

command=("${@:${#options[@]}+1:2}")

is_offline() { ! "$REAL_CSCLI" "${options[@]}" hub update &>/dev/null; }

case " $* " in
  *' hub update '*)
    # Without an index the engine does not start at all; an empty one is what a new installation begins with.
    index=$("$REAL_CSCLI" "${options[@]}" config show --key Config.ConfigPaths.HubIndexFile 2>/dev/null)
    [[ -z $index || -s $index ]] || printf '{}' >"$index"
    ;;
  *' hub upgrade '* | *' capi register '* | *' console enroll '*) ;;
  # An item of this name may not be there at all, which no later start would mend.
  *' install '*) is_offline || exit "$status" ;;
  *) exit "$status" ;;
esac
echo "cscli ${command[*]} failed, and is forgiven: the engine starts with what it has" >&2
