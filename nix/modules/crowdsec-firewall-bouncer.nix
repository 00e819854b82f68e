# services.lapidary.firewallBouncer: nixpkgs' crowdsec-firewall-bouncer against Lapidary, with what nixpkgs' module
# leaves out: a key that renews itself, restarts, the order after the firewall, rule sets by the names in its settings.
# Extends that module and declares none of its options. A mistake here leaves a host without its bans.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.lapidary.firewallBouncer;
  key = config.services.lapidary.keys.crowdsec-firewall-bouncer;
  inherit (config.services.crowdsec-firewall-bouncer) settings;
  known = options.services ? crowdsec-firewall-bouncer;

  nftables = settings.mode == "nftables";
  firewallUnit = if nftables then "nftables.service" else "firewall.service";

  table =
    version:
    let
      ipv6 = version == "ipv6";
      names = settings.nftables.${version};
      set = settings."blacklists_${version}";
      chain = hook: ''
        chain ${if hook == "input" then names.chain else "${names.chain}-${hook}"} {
          type filter hook ${hook} priority filter; policy accept;
          ${if ipv6 then "ip6" else "ip"} saddr @${set} drop
        }
      '';
    in
    lib.mkIf (names.enabled && names.set-only) {
      ${names.table} = {
        family = if ipv6 then "ip6" else "ip";
        content = ''
          set ${set} {
            type ${version}_addr
            flags timeout
          }
        ''
        + lib.concatMapStrings chain cfg.hooks;
      };
    };
in
{
  imports = [ ./lapidary-keys.nix ];

  options.services.lapidary.firewallBouncer = {
    enable = lib.mkEnableOption "CrowdSec's firewall bouncer against the Lapidary at `services.lapidary.brokerUrl`. The key's own options are those of `services.lapidary.keys.crowdsec-firewall-bouncer`";
    hooks = mkOption {
      type = types.nonEmptyListOf (
        types.enum [
          "input"
          "forward"
        ]
      );
      default = [ "input" ];
      example = [
        "input"
        "forward"
      ];
      description = "Which traffic is filtered: to this host, and, on a router, through it.";
    };
    createRulesets = mkOption {
      type = types.bool;
      default = true;
      description = ''
        In nftables mode, make the tables, sets and chains under the names that
        `services.crowdsec-firewall-bouncer.settings` gives them. Takes the place of nixpkgs' option of this name, which
        knows one pair of set names only and filters no forwarded traffic.
      '';
    };
  };

  config = lib.mkIf cfg.enable (lib.mkMerge [
    {
      assertions = [
        {
          assertion = known;
          message = "services.lapidary.firewallBouncer extends nixpkgs' services.crowdsec-firewall-bouncer, which NixOS has since 25.11.";
        }
      ]
      ++ lib.optional known {
        assertion = settings.mode != "ipset";
        message = "services.lapidary.firewallBouncer is for the modes nftables and iptables; in ipset mode the rules are yours, use services.lapidary.keys.";
      };
      services.lapidary.keys.crowdsec-firewall-bouncer = { };
    }
    (lib.optionalAttrs known {
      services.crowdsec-firewall-bouncer = {
        enable = true;
        createRulesets = false;
        registerBouncer.enable = false;
        secrets.apiKeyPath = key.keyFile;
        settings = {
          api_url = lib.mkDefault "${toString key.brokerUrl}/";
          # A bouncer that ends because its first pull failed takes its rules down.
          retry_initial_connect = lib.mkDefault true;
          # Before nixpkgs' own default, after what the user sets.
          iptables_chains = lib.mkOverride 900 (map lib.toUpper cfg.hooks);
        };
      };

      networking.nftables.tables = lib.mkIf (nftables && cfg.createRulesets) (
        lib.mkMerge [
          (table "ipv4")
          (table "ipv6")
        ]
      );

      systemd.services.crowdsec-firewall-bouncer = {
        after = [ firewallUnit ];
        partOf = [ firewallUnit ];
        # nixpkgs loads the key under this name.
        serviceConfig.SetCredential = [ "API_KEY_FILE:unset" ];
      };
    })
  ]);
}
