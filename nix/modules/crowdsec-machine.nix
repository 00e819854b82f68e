# services.lapidary.machine: nixpkgs' services.crowdsec as a log processor for a central LAPI behind Lapidary. The host
# gets its machine's account from the broker; the engine's own LAPI stays off. Extends nixpkgs' module and reads none of
# its settings. A mistake here stops a host from reporting what it sees.
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
  cfg = lapidary.machine;
  shared = import ./shared.nix { inherit lib; };
  fetched = import ./fetched.nix { inherit config lib pkgs; };
  known = options.services ? crowdsec;

  account = shared.hostClient lapidary // {
    inherit (cfg) renewEvery waitSeconds;
    fetcher = "lapidary-machine";
    description = "Account of this host's log processor";
    file = "credentials.yaml";
    arguments = [ "--machine" ];
    unit = "crowdsec";
    credential = "lapidary-machine";
    # nixpkgs lets crowdsec test its configuration before what is added here, and the test reads the credentials: they
    # must be there, and name an address, which is not called.
    unset = "url: unset";
    isUnset = "there is no account yet";
    # What stands before nixpkgs' own commands is lost: they begin by clearing those of the package's unit.
    place = lib.mkAfter;
  };

  # Where systemd puts it (systemd.exec(5), CREDENTIALS_DIRECTORY); cscli reads it there too while crowdsec runs.
  credentialsFile = "/run/credentials/crowdsec.service/lapidary-machine";

  # Where the main configuration is: 25.11 and 26.05 have `general`, their rewrite (nixpkgs#535319) has `config`.
  main = if (options.services.crowdsec.settings.type.getSubOptions [ ]) ? config then "config" else "general";
in
{
  imports = [
    ./crowdsec-unit.nix
    ./lapidary-keys.nix
  ];

  options.services.lapidary.machine = {
    enable = lib.mkEnableOption "this host's log processor as a machine of the engine behind the Lapidary at `services.lapidary.brokerUrl`. The broker must know this host with `\"machine\"`, or its enrolment token must give one";
    renewEvery = mkOption {
      type = shared.timeSpan;
      default = "1h";
      description = "How often the broker is asked whether the account is good. A host that is given another one restarts crowdsec.";
    };
    waitSeconds = mkOption {
      type = types.ints.between 1 60;
      default = 30;
      description = ''
        How long a start of crowdsec waits for the broker. After that it goes on with the account that it has, or fails
        and is tried again. It is a part of what systemd gives the whole start, 90 s by default, and must leave the rest.
      '';
    };
  };

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        services.lapidary.crowdsec.enable = true;
        assertions =
          shared.clientAssertions "services.lapidary.machine" account
          ++ [
            {
              assertion = !lapidary.engine.enable;
              message = "services.lapidary: engine is for a host with a LAPI of its own, machine for one without; enable one of them.";
            }
          ];
        warnings = lib.optional (shared.isPlainHttp lapidary.brokerUrl) "services.lapidary.brokerUrl is plain http: the machine's password can be read on the way.";
      }
      (lib.optionalAttrs known {
        services.crowdsec.settings =
          {
            general = {
              general.api.server.enable = false;
              lapi.credentialsFile = credentialsFile;
            };
            config.config.api = {
              server.enable = false;
              client.credentials_path = credentialsFile;
            };
          }
          .${main};
        systemd.services = fetched.services account;
        systemd.timers = fetched.timers account;
      })
    ]
  );
}
