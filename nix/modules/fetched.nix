# The units by which a consumer gets something from the broker as a credential: a sandboxed oneshot that alone sees the
# host key, what the consumer does before it starts, and a timer. A mistake here keeps a consumer from starting, or
# hands it a secret that no longer works.
{
  config,
  lib,
  pkgs,
}:
let
  cfg = config.services.lapidary;
  shared = import ./shared.nix { inherit lib; };
  systemctl = lib.getExe' config.systemd.package "systemctl";

  # lapidary-key@proxy: lapidary-key-retry@proxy.
  retry = it: if lib.hasInfix "@" it.fetcher then lib.replaceStrings [ "@" ] [ "-retry@" ] it.fetcher else "${it.fetcher}-retry";
in
{
  # it: fetcher (its unit's name, from which its folder and its scripts have theirs), description (what is fetched, and
  # for whom), file (what the client publishes in the folder), arguments (the client's own), unit and credential (of the
  # consumer), unset (the credential's content until something was fetched), isUnset (what a person is told then), place
  # (where the commands go among those that the consumer has), waitSeconds, renewEvery; and as the client wants them
  # brokerUrl, host, hostKeyFile, enrolTokenFile, identityToken.
  services =
    it:
    let
      # lapidary-key@proxy: /var/lib/lapidary-key/proxy, lapidary-require-key-proxy.
      stateDir = lib.replaceStrings [ "@" ] [ "/" ] it.fetcher;
      script = lib.replaceStrings [ "@" ] [ "-" ] (lib.removePrefix "lapidary-" it.fetcher);

      require = pkgs.writeShellScript "lapidary-require-${script}" ''
        if [ "$(<"$CREDENTIALS_DIRECTORY/${it.credential}")" = ${lib.escapeShellArg it.unset} ]; then
          echo "${it.isUnset}: see systemctl status ${it.fetcher}" >&2
          exit 1
        fi
      '';

      restartConsumer = pkgs.writeShellScript "lapidary-restart-consumer-${script}" ''
        changed=/var/lib/${stateDir}/changed
        consumer=${lib.escapeShellArg it.unit}.service
        [ -e "$changed" ] || exit 0
        case $(<"$changed")-$(${systemctl} show --property=SubState --value "$consumer") in
          # It had nothing to start with until now, and may have given up, or be about to: its unit's limit is its own.
          first-auto-restart* | first-failed)
            ${systemctl} reset-failed "$consumer"
            ${systemctl} --no-block start "$consumer"
            ;;
          # Not running, or waiting for this very unit: it reads what is new when it starts.
          *-start-pre | *-auto-restart* | *-dead | *-failed) ;;
          *) ${systemctl} --no-block try-restart "$consumer" ;;
        esac
        rm -f "$changed"
      '';
    in
    {
      ${it.fetcher} = {
        description = "${it.description}, from ${toString it.brokerUrl}";
        inherit (shared.brokerOrder) wants after;
        # A consumer that has given up asks no more.
        onFailure = [ "${retry it}.timer" ];
        startLimitIntervalSec = 0;
        serviceConfig = shared.fetcherSandbox // {
          Type = "oneshot";
          StateDirectory = stateDir;
          StateDirectoryMode = "0700";
          ExecStart = "${lib.getExe cfg.clientPackage} ${
            shared.clientArguments it (
              it.arguments
              ++ [
                "--state"
                "%S/${stateDir}"
                "--every"
                it.renewEvery
              ]
            )
          }";
          ExecStartPost = "+${restartConsumer}";
          # 10: nothing new. 11: broker out of reach, but there is a cached one. What somebody must see to is a failure.
          SuccessExitStatus = "10 11";
          TimeoutStartSec = 120;
          LoadCredential = shared.clientCredentials it;
          SetCredential = shared.clientFallbacks it;
        };
      };

      # `+` leaves the consumer's sandbox, `-` and the time limit let a cached credential start it whatever the broker
      # does. There must be no ordering between the two units: it would deadlock.
      ${it.unit} = {
        startLimitIntervalSec = lib.mkDefault 0;
        serviceConfig = {
          LoadCredential = [ "${it.credential}:/var/lib/${stateDir}/${it.file}" ];
          # Without a value for a missing file the service would fail before its first command could fetch it.
          SetCredential = [ "${it.credential}:${it.unset}" ];
          ExecStartPre = it.place [
            "-+${lib.getExe' pkgs.coreutils "timeout"} ${toString it.waitSeconds} ${systemctl} start ${it.fetcher}.service"
            "${require}"
          ];
          Restart = lib.mkDefault "always";
          RestartSec = lib.mkDefault "2s";
          RestartSteps = lib.mkDefault 6;
          RestartMaxDelaySec = lib.mkDefault "2min";
        };
      };
    };

  timers = it: {
    ${it.fetcher} = {
      description = "Asks ${toString it.brokerUrl} whether there is something new for ${it.unit}.service";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnActiveSec = it.renewEvery;
        OnUnitInactiveSec = it.renewEvery;
        RandomizedDelaySec = shared.quarter it.renewEvery;
        FixedRandomDelay = true;
      };
    };
    ${retry it} = {
      description = "Asks ${toString it.brokerUrl} again, after a failure";
      timerConfig = {
        Unit = "${it.fetcher}.service";
        OnActiveSec = "30s";
        RandomizedDelaySec = "25s";
        AccuracySec = "1s";
        # So that the next failure can start it anew.
        RemainAfterElapse = false;
      };
    };
  };
}
