# What the engine's mode and the machine's mode want of nixpkgs' crowdsec.service alike: a start without the hub, the
# journal, a working reload. A mistake here stops a host's log processor from starting.
{ lib, pkgs }:
let
  inherit (lib) mkOption types;
in
{
  options = {
    offlineBoot = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Let crowdsec start without a connection to CrowdSec's hub, with the items that it has. nixpkgs' module runs
        `cscli hub update` before each start, and does not start when that fails.
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

  assertions = mode: config: known: [
    {
      assertion = known && config.services.crowdsec.enable;
      message = "services.lapidary.${mode} extends nixpkgs' services.crowdsec, which must be enabled.";
    }
  ];

  # The configuration of services.crowdsec; `cfg` holds the options above.
  package =
    cfg:
    lib.mkIf cfg.offlineBoot (
      lib.mkDefault (pkgs.callPackage ../crowdsec-offline.nix { crowdsec = cfg.basePackage; })
    );

  serviceConfig =
    cfg:
    {
      # nixpkgs clears the command of the package's unit and leaves none.
      ExecReload = lib.mkAfter [ "${lib.getExe' pkgs.coreutils "kill"} -HUP $MAINPID" ];
    }
    // lib.optionalAttrs cfg.journal {
      # A user namespace of its own hides the journal's group.
      PrivateUsers = lib.mkForce false;
      SupplementaryGroups = [ "systemd-journal" ];
    };
}
