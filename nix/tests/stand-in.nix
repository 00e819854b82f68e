# The options of NixOS that the modules set or extend, for evaluation with nixpkgs' `lib` alone. Values of units merge
# as NixOS merges them; nixpkgs' two CrowdSec modules are stood in for by what the modules here rely on. `main` is the
# option of the engine's main configuration: `general` in 25.11 and 26.05, `config` in the rewrite that is to follow
# (nixpkgs#535319).
{
  config,
  lib,
  main,
  ...
}:
let
  inherit (lib) mkOption types;
  anything = mkOption {
    type = types.anything;
    default = null;
  };
  list = mkOption {
    type = types.listOf types.str;
    default = [ ];
  };

  # A key of a unit: lists of several definitions are one list, two different texts are a conflict.
  unitValue = lib.mkOptionType {
    name = "unit value";
    merge =
      loc: definitions:
      if lib.any (definition: lib.isList definition.value) definitions then
        lib.concatMap (definition: lib.toList definition.value) definitions
      else
        lib.mergeEqualOption loc definitions;
  };
  unit = types.submodule {
    options = {
      description = mkOption {
        type = types.str;
        default = "";
      };
      after = list;
      wants = list;
      requires = list;
      partOf = list;
      wantedBy = list;
      onFailure = list;
      overrideStrategy = mkOption {
        type = types.str;
        default = "asDropinIfExists";
      };
      environment = mkOption {
        type = types.attrsOf types.str;
        default = { };
      };
      startLimitIntervalSec = mkOption {
        type = types.nullOr types.int;
        default = null;
      };
      startLimitBurst = mkOption {
        type = types.nullOr types.int;
        default = null;
      };
      serviceConfig = mkOption {
        type = types.attrsOf unitValue;
        default = { };
      };
      timerConfig = mkOption {
        type = types.attrsOf unitValue;
        default = { };
      };
    };
  };

  firewall = config.services.crowdsec-firewall-bouncer;
in
{
  options = {
    assertions = mkOption {
      type = types.listOf types.attrs;
      default = [ ];
    };
    warnings = list;
    networking = {
      hostName = mkOption {
        type = types.str;
        default = "web-1";
      };
      nftables = {
        enable = mkOption {
          type = types.bool;
          default = false;
        };
        flushRuleset = mkOption {
          type = types.bool;
          default = false;
        };
      };
      firewall.allowedTCPPorts = mkOption {
        type = types.listOf types.port;
        default = [ ];
      };
    };
    systemd = {
      package = mkOption { type = types.package; };
      services = mkOption {
        type = types.attrsOf unit;
        default = { };
      };
      timers = mkOption {
        type = types.attrsOf unit;
        default = { };
      };
    };
    services = {
      openssh = {
        enable = mkOption {
          type = types.bool;
          default = false;
        };
        hostKeys = mkOption {
          type = types.listOf types.attrs;
          default = [
            {
              type = "rsa";
              bits = 4096;
              path = "/etc/ssh/ssh_host_rsa_key";
            }
            {
              type = "ed25519";
              path = "/etc/ssh/ssh_host_ed25519_key";
            }
          ];
        };
      };
      # What a scrape of Lapidary needs, by the names of nixpkgs' module.
      prometheus = {
        enable = mkOption {
          type = types.bool;
          default = false;
        };
        checkConfig = mkOption {
          type = types.either types.bool (types.enum [ "syntax-only" ]);
          default = true;
        };
        ruleFiles = mkOption {
          type = types.listOf types.path;
          default = [ ];
        };
        scrapeConfigs = mkOption {
          default = [ ];
          type = types.listOf (
            types.submodule {
              options = {
                job_name = mkOption { type = types.str; };
                scheme = mkOption {
                  type = types.enum [
                    "http"
                    "https"
                  ];
                };
                authorization.credentials_file = mkOption { type = types.str; };
                static_configs = mkOption {
                  type = types.listOf (types.submodule { options.targets = list; });
                };
              };
            }
          );
        };
      };
      crowdsec = {
        enable = mkOption {
          type = types.bool;
          default = false;
        };
        package = mkOption {
          type = types.nullOr types.package;
          default = null;
        };
        user = mkOption {
          type = types.str;
          default = "crowdsec";
        };
        group = mkOption {
          type = types.str;
          default = "crowdsec";
        };
        autoUpdateService = anything;
        hub = anything;
        localConfig = anything;
        settings = mkOption {
          default = { };
          type = types.submodule {
            options = {
              ${main} = mkOption {
                type = types.attrsOf types.anything;
                default = { };
              };
            }
            // lib.optionalAttrs (main == "general") {
              lapi.credentialsFile = mkOption {
                type = types.nullOr types.path;
                default = null;
              };
            };
          };
        };
      };
      crowdsec-firewall-bouncer = {
        enable = mkOption {
          type = types.bool;
          default = false;
        };
        createRulesets = mkOption {
          type = types.bool;
          default = true;
        };
        registerBouncer.enable = mkOption {
          type = types.bool;
          default = config.services.crowdsec.enable;
        };
        secrets.apiKeyPath = mkOption {
          type = types.nullOr types.path;
          default = null;
        };
        settings = mkOption {
          default = { };
          type = types.submodule {
            freeformType = types.attrsOf types.anything;
            options = {
              mode = mkOption {
                type = types.str;
                default = if config.networking.nftables.enable then "nftables" else "iptables";
              };
              api_url = mkOption {
                type = types.str;
                default = "of the engine";
              };
            };
          };
        };
      };
    };
  };

  config = lib.mkMerge [
    (lib.mkIf config.networking.nftables.enable {
      # nixpkgs makes its tables anew at each reload, those of the reload before included; or flushes everything.
      systemd.services.nftables = {
        description = "nftables firewall";
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = [ "/nixpkgs/nftables-rules" ];
          ExecReload = [ "/nixpkgs/nftables-rules" ];
          ExecStop = [ "/nixpkgs/nftables-deletions" ];
        };
      };
    })
    (lib.mkIf firewall.enable {
      assertions = [
        {
          assertion = !(firewall.registerBouncer.enable && firewall.secrets.apiKeyPath != null);
          message = "nixpkgs: registerBouncer.enable and secrets.apiKeyPath exclude each other";
        }
      ];
      services.crowdsec-firewall-bouncer.settings = lib.mapAttrsRecursive (_: lib.mkDefault) {
        blacklists_ipv4 = "crowdsec-blacklists";
        blacklists_ipv6 = "crowdsec6-blacklists";
        iptables_chains = [ "INPUT" ];
        nftables = {
          ipv4 = {
            enabled = true;
            set-only = true;
            table = "crowdsec";
            chain = "crowdsec-chain";
          };
          ipv6 = {
            enabled = true;
            set-only = true;
            table = "crowdsec6";
            chain = "crowdsec6-chain";
          };
        };
      };
      # Of nixpkgs' unit what the bouncer's start depends on.
      systemd.services.crowdsec-firewall-bouncer = {
        description = "CrowdSec Firewall Bouncer";
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          Type = "notify";
          DynamicUser = true;
          RuntimeDirectory = "crowdsec-firewall-bouncer";
          LoadCredential = "API_KEY_FILE:${firewall.secrets.apiKeyPath}";
          AmbientCapabilities = [ "CAP_NET_ADMIN" ];
          CapabilityBoundingSet = [ "CAP_NET_ADMIN" ];
          ExecStartPre = [
            "/nixpkgs/write-config"
            "/nixpkgs/cs-firewall-bouncer -c /run/crowdsec-firewall-bouncer/config.yaml -t"
          ];
          ExecStart = [ "/nixpkgs/cs-firewall-bouncer -c /run/crowdsec-firewall-bouncer/config.yaml" ];
        };
      };
    })
    (lib.mkIf config.services.crowdsec.enable {
      systemd.services.crowdsec = {
        description = "CrowdSec";
        wantedBy = [ "multi-user.target" ];
        # The lists begin by clearing what the package's own unit says.
        serviceConfig = {
          Type = "notify";
          DynamicUser = true;
          User = config.services.crowdsec.user;
          PrivateUsers = true;
          ReadWritePaths = [ "/var/lib/crowdsec" ];
          RestartSec = 60;
          ExecReload = [ " " ];
          ExecStartPre = [
            " "
            "/nixpkgs/crowdsec-setup"
            "/nixpkgs/crowdsec -t"
          ];
          ExecStart = [
            " "
            "/nixpkgs/crowdsec"
          ];
        };
      };
    })
  ];
}
