# services.lapidary.firewallBouncer: nixpkgs' crowdsec-firewall-bouncer against Lapidary, with what nixpkgs' module
# leaves out: a key that renews itself, restarts, the order after the firewall, rule sets by the names in its settings.
# Extends that module and declares none of its options. A mistake here leaves a host without its bans.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.lapidary.firewallBouncer;
  key = config.services.lapidary.keys.crowdsec-firewall-bouncer;
  inherit (config.services.crowdsec-firewall-bouncer) settings;
  known = options.services ? crowdsec-firewall-bouncer;

  nft = lib.getExe' pkgs.nftables "nft";
  systemctl = lib.getExe' config.systemd.package "systemctl";

  nftables = settings.mode == "nftables";
  firewallUnit = if nftables then "nftables.service" else "firewall.service";

  families = lib.filter ({ names, ... }: names.enabled) [
    {
      family = "ip";
      type = "ipv4_addr";
      set = settings.blacklists_ipv4;
      names = settings.nftables.ipv4;
    }
    {
      family = "ip6";
      type = "ipv6_addr";
      set = settings.blacklists_ipv6;
      names = settings.nftables.ipv6;
    }
  ];
  setOnly = lib.filter ({ names, ... }: names.set-only) families;

  denyAction = lib.toUpper (settings.deny_action or "DROP");
  # nft knows no escapes inside a text.
  denyLogPrefix = lib.replaceStrings [ "\"" ] [ "" ] (settings.deny_log_prefix or "crowdsec: ");
  deny =
    lib.optionalString (settings.deny_log or false) "log prefix \"${denyLogPrefix}\" " + lib.toLower denyAction;

  # Begins with empty sets, as nixpkgs' own test of the configuration, which needs them, leaves them: the bouncer asks for
  # the whole list at its start.
  tables = pkgs.writeText "lapidary-nftables-tables" (
    lib.concatMapStrings (
      {
        family,
        type,
        set,
        names,
      }:
      let
        chain = hook: ''
          chain ${if hook == "input" then names.chain else "${names.chain}-${hook}"} {
            type filter hook ${hook} priority ${toString (names.priority or "filter")}; policy accept;
            ${family} saddr @${set} ${deny}
          }
        '';
      in
      ''
        table ${family} ${names.table}
        delete table ${family} ${names.table}
        table ${family} ${names.table} {
          set ${set} {
            type ${type}
            flags timeout
          }
        ${lib.concatMapStrings chain settings.nftables_hooks}}
      ''
    ) setOnly
  );

  # After a reload of nftables.service, which may have flushed everything: the bouncer itself would never notice, and get
  # deltas only. Sets that somebody else makes are always new then.
  refill = pkgs.writeShellScript "lapidary-refill-sets" ''
    refill() {
      ${systemctl} --no-block try-restart crowdsec-firewall-bouncer.service
      exit
    }
    ${
      if setOnly != [ ] && !cfg.createRulesets then
        "refill"
      else
        ''
          tables=$'\n'$(${nft} list tables)$'\n'
          for table in ${lib.concatMapStringsSep " " ({ family, names, ... }: lib.escapeShellArg "${family} ${names.table}") families}; do
            [[ $tables == *$'\n'"table $table"$'\n'* ]] || refill
          done''
    }
  '';
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
      description = ''
        Which traffic is filtered: to this host, and, on a router, through it. Another choice is `iptables_chains` or
        `nftables_hooks` in the bouncer's settings.
      '';
    };
    createRulesets = mkOption {
      type = types.bool;
      default = true;
      description = ''
        In nftables mode with `set-only`, make the tables, sets and chains under the names and with the priority, hooks,
        action and logging that `services.crowdsec-firewall-bouncer.settings` has. They are made when the bouncer starts,
        and a reload of nftables.service leaves them alone. Takes the place of nixpkgs' option of this name, whose sets
        are empty after each reload.
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
      ++ lib.optionals known [
        {
          assertion = settings.mode != "ipset";
          message = "services.lapidary.firewallBouncer is for the modes nftables and iptables; in ipset mode the rules are yours, use services.lapidary.keys.";
        }
        {
          assertion = nftables -> config.networking.nftables.enable;
          message = "services.crowdsec-firewall-bouncer.settings.mode is nftables, and this host's firewall is not: set networking.nftables.enable.";
        }
        {
          assertion = lib.elem denyAction [
            "DROP"
            "REJECT"
          ];
          message = "services.crowdsec-firewall-bouncer.settings.deny_action is DROP or REJECT.";
        }
      ];
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
          nftables_hooks = lib.mkOverride 900 cfg.hooks;
        };
      };

      systemd.services = {
        crowdsec-firewall-bouncer = {
          after = [ firewallUnit ];
          partOf = [ firewallUnit ];
          serviceConfig = {
            # nixpkgs loads the key under this name.
            SetCredential = [ "API_KEY_FILE:unset" ];
            # After the key is there, before nixpkgs' own commands.
            ExecStartPre = lib.mkIf (nftables && cfg.createRulesets && setOnly != [ ]) (
              lib.mkOrder 600 [ "+${nft} -f ${tables}" ]
            );
          };
        };
        nftables = lib.mkIf nftables { serviceConfig.ExecReload = lib.mkAfter [ "-${refill}" ]; };
      };
    })
  ]);
}
