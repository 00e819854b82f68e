# services.lapidary.crowdsec: what nixpkgs' services.crowdsec lacks, with or without a broker: a start without the hub, the
# journal, a working reload. The engine's mode and the machine's mode want it. Extends nixpkgs' module and reads none of its
# settings. A mistake here stops a host's engine or log processor from starting.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.lapidary.crowdsec;
  known = options.services ? crowdsec;

  # 25.11 and 26.05 set the engine up in its own unit, their rewrite (nixpkgs#535319) in another.
  isRewritten = (options.services.crowdsec.settings.type.getSubOptions [ ]) ? config;
  units = [ "crowdsec" ] ++ lib.optional isRewritten "crowdsec-setup";
in
{
  options.services.lapidary.crowdsec = {
    enable = lib.mkEnableOption "what follows for nixpkgs' `services.crowdsec`. `services.lapidary.engine` and `services.lapidary.machine` enable it";
    offlineBoot = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Let crowdsec start without a connection to CrowdSec's hub, with the items that it has. nixpkgs' module runs
        `cscli hub update` before each start, and does not start when that fails. Here what CrowdSec's servers are asked
        for may fail, and the unit's journal names it; that an item is not in the hub stays a failure.
      '';
    };
    basePackage = mkOption {
      type = types.package;
      default = pkgs.crowdsec;
      defaultText = lib.literalExpression "pkgs.crowdsec";
      description = "crowdsec's package where `offlineBoot` wraps it; `services.crowdsec.package` takes the place of both.";
    };
    journal = mkOption {
      type = types.bool;
      default = false;
      description = "Let crowdsec read the systemd journal, for acquisitions with `source: journalctl`.";
    };
  };

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        assertions = [
          {
            assertion = known && config.services.crowdsec.enable;
            message = "services.lapidary.crowdsec, engine and machine extend nixpkgs' services.crowdsec, which must be enabled.";
          }
        ];
      }
      (lib.optionalAttrs known {
        warnings =
          lib.optional (cfg.offlineBoot && options.services.crowdsec.package.highestPrio < (lib.mkDefault null).priority)
            "services.crowdsec.package is set, so services.lapidary.crowdsec.offlineBoot does nothing: set services.lapidary.crowdsec.basePackage instead.";

        services.crowdsec.package = lib.mkIf cfg.offlineBoot (
          lib.mkDefault (pkgs.callPackage ../crowdsec-offline.nix { crowdsec = cfg.basePackage; })
        );

        systemd.services = lib.mkMerge [
          # Only here a failure is forgiven.
          (lib.genAttrs units (_: { environment.CSCLI_OFFLINE_START = "1"; }))
          {
            crowdsec.serviceConfig = {
              # nixpkgs clears the command of the package's unit and leaves none.
              ExecReload = lib.mkAfter [ "${lib.getExe' pkgs.coreutils "kill"} -HUP $MAINPID" ];
            }
            // lib.optionalAttrs cfg.journal {
              # A user namespace of its own hides the journal's group.
              PrivateUsers = lib.mkForce false;
              SupplementaryGroups = [ "systemd-journal" ];
            };
          }
        ];
      })
    ]
  );
}
