# services.lapidary.engine: nixpkgs' services.crowdsec behind Lapidary; its other mode, a log processor for an engine
# elsewhere, is in crowdsec-machine.nix. The engine makes the key under which Lapidary pulls from it; a signed request
# takes that key to the broker; it is replaced without a gap. Extends nixpkgs' module and reads none of its settings,
# whose shape differs between releases. A mistake here stops an engine from starting.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  lapidary = config.services.lapidary;
  cfg = lapidary.engine;
  shared = import ./shared.nix { inherit lib; };
  known = options.services ? crowdsec;

  systemctl = lib.getExe' config.systemd.package "systemctl";
  engine = pkgs.writeShellApplication {
    name = "lapidary-engine";
    runtimeInputs = [
      pkgs.coreutils
      pkgs.gnugrep
      pkgs.jq
    ];
    text = lib.removePrefix "#!/usr/bin/env bash\n" (builtins.readFile ../engine.sh);
  };
  key = shared.hostClient lapidary;

  # The engine's user, its database, and nothing else.
  asEngine = arguments: {
    startLimitIntervalSec = 0;
    environment.CSCLI = cfg.cscli;
    serviceConfig = shared.fetcherSandbox // {
      DynamicUser = false;
      User = config.services.crowdsec.user;
      Group = config.services.crowdsec.group;
      PrivateUsers = false;
      Type = "oneshot";
      ExecStart = "${lib.getExe engine} ${arguments}";
      StateDirectory = "lapidary-engine";
      StateDirectoryMode = "0700";
      ReadWritePaths = cfg.dataDirs;
      EnvironmentFile = cfg.environmentFiles;
      TimeoutStartSec = 60;
    };
  };
in
{
  imports = [
    ./crowdsec-machine.nix
    ./crowdsec-unit.nix
    ./lapidary-keys.nix
  ];

  options.services.lapidary.engine = {
    enable = lib.mkEnableOption "the engine of this host behind the Lapidary at `services.lapidary.brokerUrl`. The broker must know this host with `\"engine\": true`";
    bouncerName = mkOption {
      type = types.strMatching "[A-Za-z][A-Za-z0-9]*";
      default = "lapidary";
      description = "What Lapidary is called in `cscli bouncers list`; a number follows. Older bouncers of this name are deleted.";
    };
    rotateEvery = mkOption {
      type = shared.timeSpan;
      default = "30d";
      description = "Age at which the key is replaced.";
    };
    renewEvery = mkOption {
      type = shared.timeSpan;
      default = "1h";
      description = "How often the broker is asked whether it still has the key.";
    };
    cscli = mkOption {
      type = types.str;
      default = "/run/current-system/sw/bin/cscli";
      description = "A cscli that knows this engine's configuration: that of nixpkgs' module is in the system's path.";
    };
    dataDirs = mkOption {
      type = types.listOf types.str;
      default = [ "/var/lib/crowdsec" ];
      description = "Where cscli must be able to write: the engine's database.";
    };
    environmentFiles = mkOption {
      type = types.listOf types.str;
      default = lib.toList (config.systemd.services.crowdsec.serviceConfig.EnvironmentFile or [ ]);
      defaultText = lib.literalExpression "config.systemd.services.crowdsec.serviceConfig.EnvironmentFile";
      example = [ "/run/secrets/crowdsec-database" ];
      description = "Files with the variables that the engine's configuration names: the password of its database, say. cscli reads them, too.";
    };
    consoleTokenFile = mkOption {
      type = types.nullOr types.externalPath;
      default = null;
      example = "/run/secrets/crowdsec-enrolment";
      description = ''
        File with an enrolment key of CrowdSec's console. Tried until it succeeds, and never in the way of a start.
        cscli takes it as an argument only, where other users of this host can see it for the time of that one call.
      '';
    };
  };

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        assertions = shared.clientAssertions "services.lapidary.engine" key;
        warnings = lib.optional (shared.isPlainHttp key.brokerUrl) "services.lapidary.brokerUrl is plain http: the engine's key can be read on the way.";
      }
      { services.lapidary.crowdsec.enable = true; }
      (lib.optionalAttrs known {
        systemd.services = {
          crowdsec.serviceConfig = {
            # After nixpkgs' own set-up, which makes the database; a failure here does not keep the engine down.
            ExecStartPre = lib.mkAfter [ "-+${systemctl} start lapidary-engine-register.service" ];
            Restart = lib.mkDefault "always";
            RestartSec = lib.mkDefault "10s";
          };

          lapidary-engine-register =
            asEngine "register ${cfg.bouncerName} ${toString (shared.seconds cfg.rotateEvery)}"
            // {
              description = "Key under which Lapidary pulls from this engine";
            };

          lapidary-engine-retire = asEngine "retire ${cfg.bouncerName}" // {
            description = "Deletes the keys that Lapidary used before";
          };

          lapidary-engine-key = {
            description = "Takes this engine's key to ${toString key.brokerUrl}";
            wantedBy = [ "multi-user.target" ];
            inherit (shared.brokerOrder) wants;
            after = shared.brokerOrder.after ++ [ "crowdsec.service" ];
            startLimitIntervalSec = 0;
            serviceConfig = shared.fetcherSandbox // {
              Type = "oneshot";
              StateDirectory = "lapidary-engine-key";
              StateDirectoryMode = "0700";
              LoadCredential = shared.clientCredentials key ++ [ "engine-key:/var/lib/lapidary-engine/current/key" ];
              SetCredential = shared.clientFallbacks key ++ [ "engine-key:unset" ];
              ExecStartPre = "-+${systemctl} start lapidary-engine-register.service";
              ExecStart = "${lib.getExe lapidary.clientPackage} ${
                shared.clientArguments key [
                  "--engine-key"
                  "%d/engine-key"
                  "--state"
                  "%S/lapidary-engine-key"
                ]
              }";
              # Only after the broker's yes (0, 10) may the earlier key go.
              ExecStartPost = "-+${systemctl} start lapidary-engine-retire.service";
              SuccessExitStatus = "10";
              RestartPreventExitStatus = "77 78";
              Restart = "on-failure";
              RestartSec = "1min";
              TimeoutStartSec = 180;
            };
          };
        }
        // lib.optionalAttrs (cfg.consoleTokenFile != null) {
          lapidary-engine-console =
            lib.recursiveUpdate (asEngine "enrol ${lapidary.host} %d/token") {
              serviceConfig = {
                LoadCredential = [ "token:${cfg.consoleTokenFile}" ];
                Restart = "on-failure";
                RestartSec = "10min";
              };
            }
            // {
              description = "Enrols this engine in CrowdSec's console";
              wantedBy = [ "multi-user.target" ];
              wants = [ "network-online.target" ];
              after = [
                "network-online.target"
                "crowdsec.service"
              ];
            };
        };

        systemd.timers.lapidary-engine-key = {
          description = "Asks ${toString key.brokerUrl} whether it has this engine's key";
          wantedBy = [ "timers.target" ];
          timerConfig = {
            OnUnitInactiveSec = cfg.renewEvery;
            RandomizedDelaySec = shared.quarter cfg.renewEvery;
            FixedRandomDelay = true;
          };
        };
      })
    ]
  );
}
