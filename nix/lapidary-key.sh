#!/usr/bin/env bash
# lapidary-key: gets a host its bouncer's key, or its machine's account, from a Lapidary broker, or sends the broker its
# engine's key. Every request is signed with the SSH host key. A bouncer's key is made here, and only its digest travels.
# A mistake here locks a host out of its ban list, or shows a secret: none may stand in an argument, in the environment,
# or in the output.
#
# Files in --state, replaced by rename only: `generation` (how often the broker has registered this host), and `changed`
# (made before something new is published, `first` where there was nothing; whoever restarts the consumer removes it);
# `key` (the last one that the broker took), and `key.next` (made before the first request about it and kept until the
# broker's yes, so that a lost answer costs nothing);
# `credentials.yaml` (an account that the engine takes, for `api.client.credentials_path`), and `password` (made before
# the first request about it, and kept until it can have no account).
set -euo pipefail
umask 077
export LC_ALL=C

usage() {
  cat >&2 <<'USAGE'
usage: lapidary-key --broker URL --host NAME --bouncer NAME --state DIR [option...]
       lapidary-key --broker URL --host NAME --machine --state DIR [option...]
       lapidary-key --broker URL --host NAME --engine-key FILE --state DIR [option...]
  NAME may begin with %H or %l: this machine's name, whole or up to its first dot
  --host-key FILE         SSH host key that signs (default /etc/ssh/ssh_host_ed25519_key)
  --enrol-token FILE      one-time token (cse_...) for a host that the broker does not know; used at first contact
  --every SPAN            how often this is run, and after a failure within a minute: only said, in each last line
  --identity-token FILE   OIDC token of this instance, likewise; the word gce asks Google's metadata service
exit codes: 0 a new key is in DIR/key (--machine: DIR/credentials.yaml), 10 unchanged, 11 broker out of reach, or DIR
  cannot be written (what is cached stays), 75 the same with nothing cached, 76 the account waits for
  `cscli machines validate`, 77 refused, 78 refused (what is cached stays), 64 usage
USAGE
  exit 64
}

broker='' host='' bouncer='' wants_machine='' state='' engine_key='' enrol_token='' identity_token='' every=''
host_key=/etc/ssh/ssh_host_ed25519_key
while (($# > 0)); do
  if [[ $1 == --machine ]]; then
    wants_machine=true
    shift
    continue
  fi
  (($# > 1)) || usage
  case $1 in
    --broker) broker=${2%/} ;;
    --host) host=$2 ;;
    --bouncer) bouncer=$2 ;;
    --state) state=$2 ;;
    --host-key) host_key=$2 ;;
    --engine-key) engine_key=$2 ;;
    --every) every=$2 ;;
    --enrol-token) enrol_token=$2 ;;
    --identity-token) identity_token=$2 ;;
    *) usage ;;
  esac
  shift 2
done
# An image's instance has its name only when it runs.
hostname=$(</proc/sys/kernel/hostname)
named() { REPLY=${1/#%H/$hostname} REPLY=${REPLY/#%l/${hostname%%.*}}; }
named "$host" && host=$REPLY
named "$bouncer" && bouncer=$REPLY
name_rule='^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$'
[[ $broker =~ ^https?://[^[:space:]]+$ && $host =~ $name_rule && -n $state ]] || usage
case ${bouncer:+bouncer}${wants_machine:+machine}${engine_key:+engine} in
  bouncer)
    [[ $bouncer =~ $name_rule ]] || usage
    subject=keys thing=key
    ;;
  machine) subject=machine thing=account ;;
  engine) subject=engine-key thing=key ;;
  *) usage ;;
esac
mkdir -p "$state"

namespace=bootstrap-v1@lapidary
address=$broker/bootstrap/v1/$subject

say() { printf 'lapidary-key: %s\n' "$1" >&2; }

# Ends with a status and one line: what happened, and what happens next.
finish() {
  local next="asks again in $every"
  case $1 in 0 | 10 | 11) ;; *) next='asks again within a minute' ;; esac
  say "$2${every:+; $next}"
  exit "$1"
}

# The last 6 characters of a secret: CRC32 of what is before them, in base62.
checksum() {
  local alphabet=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz
  local crc=$((0xffffffff)) digits='' at bit byte
  for ((at = 0; at < ${#1}; at++)); do
    printf -v byte %d "'${1:at:1}"
    ((crc ^= byte, 1))
    for ((bit = 0; bit < 8; bit++)); do crc=$(((crc >> 1) ^ (crc & 1 ? 0xedb88320 : 0))); done
  done
  ((crc ^= 0xffffffff, 1))
  for ((at = 0; at < 6; at++, crc /= 62)); do digits=${alphabet:crc % 62:1}$digits; done
  REPLY=$digits
}

# Whether a file holds one whole secret with this prefix.
holds() {
  local text
  [[ -f $2 ]] && text=$(head -c 100 "$2" | tr -d '\0') || return 1
  [[ $text =~ ^$1[0-9A-Za-z]{49}$ ]] || return 1
  checksum "${text:0:47}"
  [[ $REPLY == "${text:47}" ]]
}

# Writes a text to a file of the state: whole, or not at all, which ends the run. `&&`, since `set -e` is off in
# whatever is called in a condition.
write() {
  { printf %s "$2" >"$state/$1.tmp" && sync "$state/$1.tmp" && mv -f "$state/$1.tmp" "$state/$1"; } ||
    out_of_reach "$state/$1 could not be written"
}

# Makes a secret with this prefix, in a file of the state.
make_secret() {
  local body
  # 62 of 256 byte values are kept: 1024 bytes leave 43 characters but for one time in 10^70.
  body=$(head -c 1024 /dev/urandom | tr -dc 0-9A-Za-z)
  body=$1${body:0:43}
  checksum "$body"
  write "$2" "$body$REPLY"
  holds "$1" "$state/$2"
}

cached() {
  case $subject in
    keys) holds csb_ "$state/key" ;;
    machine) [[ -s $state/credentials.yaml ]] ;;
    engine-key) [[ -f $state/generation ]] ;;
  esac
}

out_of_reach() {
  if cached; then finish 11 "$1; goes on with the $thing that it has"; fi
  finish 75 "$1; and there is no $thing yet"
}

unchanged() { finish 10 "$broker has the $thing, and nothing is new"; }

refused() {
  if cached; then finish 78 "REFUSED: $1; goes on with the $thing that it has, which may stop working"; fi
  finish 77 "REFUSED: $1; and there is no $thing yet"
}

# Redirects are not followed: a broker has one address, and it is signed.
fetch() { curl -q -sS --proto =http,https --max-filesize 65536 "$@"; }

generation() {
  local text=''
  [[ -f $state/generation ]] && text=$(head -c 20 "$state/generation")
  if [[ $text =~ ^[0-9]{1,15}$ ]]; then printf %s "$text"; else printf 0; fi
}

identity() {
  if [[ $identity_token == gce ]]; then
    fetch --fail --max-time 5 -H 'Metadata-Flavor: Google' --get --data-urlencode "audience=$address" \
      --data format=full \
      http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity
  elif [[ -f $identity_token ]]; then
    cat "$identity_token"
  fi
}

# What only an unknown host sends: its public key, and the token that enrols it.
introduction() {
  local token=''
  if [[ $(generation) != 0 ]]; then
    printf '{}'
  elif [[ -n $enrol_token ]] && holds cse_ "$enrol_token"; then
    jq -cn --rawfile token "$enrol_token" --arg key "$public_key" \
      '{public_key: $key, enrolment_token: ($token | rtrimstr("\n"))}'
  elif [[ -n $identity_token ]]; then
    token=$(identity) || return 1
    if [[ $token =~ ^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}$ ]]; then
      printf %s "$token" | jq -cR --arg key "$public_key" '{public_key: $key, identity_token: .}'
    else
      printf '{}'
    fi
  else
    printf '{}'
  fi
}

# The request's own part: the digest of a key in the state, the password in it, or the engine's key.
own_part() {
  case $subject in
    keys) sha512sum <"$state/$1" | jq -cR --arg bouncer "$bouncer" '{bouncer: $bouncer, key_sha512: .[:128]}' ;;
    machine) jq -cn --rawfile password "$state/$1" '{machine_password: $password}' ;;
    engine-key) jq -cn --rawfile key "$engine_key" '{engine_key: ($key | rtrimstr("\n"))}' ;;
  esac
}

payload() {
  local boot_id=''
  [[ -r /proc/sys/kernel/random/boot_id ]] && boot_id=$(cat /proc/sys/kernel/random/boot_id)
  { own_part "$1" && introduction; } |
    jq -csj --arg aud "$address" --arg host "$host" --arg nonce "$2" --arg boot "$boot_id" \
      --argjson generation "$(generation)" \
      '{v: 1, aud: $aud, host: $host, nonce: $nonce, generation: $generation} + add
        + (if $boot == "" then {} else {boot_id: $boot} end)'
}

# One exchange about a file of the state. Sets `status` (000: no answer), `answer`, and of a refusal its `kind`.
exchange() {
  local challenge nonce text signature
  status=000 answer='' kind=''
  challenge=$(fetch --fail --max-time 10 --retry 2 --retry-connrefused --retry-max-time 12 \
    "$broker/bootstrap/v1/challenge") || out_of_reach "no challenge from $broker"
  nonce=$(jq -er '.nonce | strings' <<<"$challenge" 2>/dev/null) || nonce=''
  [[ $nonce =~ ^[A-Za-z0-9_-]{1,200}\.[A-Za-z0-9_-]{1,200}$ ]] || out_of_reach "$broker does not answer as a broker"
  text=$(payload "$1" "$nonce") || out_of_reach 'the request could not be made'
  signature=$(printf %s "$text" | ssh-keygen -Y sign -q -n "$namespace" -f "$host_key") ||
    refused "$host_key cannot sign; one in PEM format must be written anew by \`ssh-keygen -p\`"
  answer=$({ printf %s "$text" | base64 -w0 && printf '\n%s' "$signature"; } |
    jq -cRs 'split("\n") | {payload: .[0], signature: (.[1:] | join("\n") + "\n")}' |
    fetch --max-time 15 -w '\n%{http_code}' -H 'content-type: application/json' --data-binary @- "$address") ||
    return 0
  status=${answer##*$'\n'} answer=${answer%$'\n'*}
  if [[ $status == [45]* ]]; then kind=$(field '.type | strings') || kind=''; fi
}

field() { jq -er "$1" <<<"$answer" 2>/dev/null; }

# What the broker says is wrong, in its own words.
complaint() {
  local why
  why=$(field '[.title, .detail] | map(strings) | join(": ")') || why=''
  why=${why//[^[:print:]]/ }
  printf %s "$broker answered $status${kind:+ ${kind#urn:lapidary:}}${why:+ ${why:0:300}}"
}

# Registers a file of the state, with a second try for what a second try can mend: a nonce that ran out, an answer
# that was lost. Sets what `accept` does. Fails only when the broker takes no such key, or gives no account for such a
# password: it is another host's, or was revoked.
register() {
  local again=true
  for (( ; ; )); do
    exchange "$1"
    case $again:$status:$kind in
      true:401:* | true:409:urn:lapidary:replayed | true:000:*) again=false ;;
      *) break ;;
    esac
  done
  case $status in
    200)
      accept || out_of_reach "$broker gave an answer that is not a broker's"
      write generation "$number"
      return 0
      ;;
    000) out_of_reach "the answer of $broker was lost" ;;
    408 | 429 | [!4]*) out_of_reach "$(complaint)" ;;
  esac
  [[ $kind != urn:lapidary:conflict ]] || return 1
  refused "$(complaint)"
}

# Believes an answer only when it is about this request. Sets `registered` (the state that it speaks of) and `number`
# (the generation), and of a bouncer's key `rotate`, of an account `machine` and `lapi_path`.
accept() {
  registered=$(field '.state | strings') || return 1
  number=$(field '.generation | select(type == "number" and . >= 0 and floor == .) | tostring') || return 1
  case $subject:$registered in
    keys:registered | keys:unchanged)
      [[ $(field .bouncer) == "$bouncer" ]] || return 1
      rotate=$(field '.rotate == true') || rotate=false
      ;;
    machine:registered | machine:unchanged | machine:waiting)
      machine=$(field '.machine | strings') && lapi_path=$(field '.lapi_path | strings') || return 1
      [[ $machine =~ ^[A-Za-z0-9._@-]{1,100}$ && $lapi_path =~ ^/([a-z0-9-]+/)*$ ]] || return 1
      ;;
    engine-key:registered | engine-key:unchanged) ;;
    *) return 1 ;;
  esac
}

# Before a file is published.
announce() {
  [[ -e $state/changed ]] || if [[ -e $state/$1 ]]; then write changed again; else write changed first; fi
}

publish_key() {
  announce key
  mv -f "$state/key.next" "$state/key"
  sync "$state"
  finish 0 "registered a new key for $bouncer at $broker"
}

publish_credentials() {
  local text
  text=$(jq -nr --rawfile password "$state/password" --arg url "$broker$lapi_path" --arg login "$machine" \
    '{$url, $login, $password} | to_entries[] | "\(.key): \(.value | tojson)"')
  [[ ! -f $state/credentials.yaml || $(<"$state/credentials.yaml") != "$text" ]] || unchanged
  announce credentials.yaml
  write credentials.yaml "$text"$'\n'
  sync "$state"
  finish 0 "has the account $machine at $broker$lapi_path"
}

public_key=''
if [[ $(generation) == 0 ]]; then
  public_key=$(ssh-keygen -y -f "$host_key" 2>/dev/null </dev/null | cut -d' ' -f1,2) || refused "$host_key cannot be read"
fi

case $subject in
  engine-key)
    if ! [[ -f $engine_key && $(<"$engine_key") =~ ^[[:graph:]]{16,200}$ ]]; then
      finish 75 'the engine has made no key yet'
    fi
    register key || refused "$broker knows this key as another's"
    [[ $registered == registered ]] || unchanged
    finish 0 "sent the engine's key to $broker"
    ;;
  machine)
    if ! { holds csm_ "$state/password" && register password; }; then
      make_secret csm_ password
      register password || refused "$(complaint)"
    fi
    if [[ $registered == waiting ]]; then
      finish 76 "WAITS: the engine wants to be told \`cscli machines validate $machine\`"
    fi
    publish_credentials
    ;;
  keys)
    # A key that was made but not confirmed comes first: the broker may know it already.
    if ! holds csb_ "$state/key.next"; then
      if holds csb_ "$state/key"; then
        if register key; then
          [[ $rotate == true ]] || unchanged
          say "$broker asks for a new key"
        fi
        # Not registered: the key was revoked. The broker takes a new one, or says why not.
      fi
      make_secret csb_ key.next
    fi
    if ! register key.next; then
      make_secret csb_ key.next
      register key.next || refused "$broker takes no new key"
    fi
    publish_key
    ;;
esac
