# Configurations that must be refused or warned of, and a few that must do something particular. test/nix/ says what.
let
  brokerUrl = "https://lapidary.example.net";
  consumer.serviceConfig.ExecStart = "/my/bouncer --key-file %d/lapidary-key";
in
{
  no-broker.services.lapidary.firewallBouncer.enable = true;

  two-introductions.services.lapidary = {
    inherit brokerUrl;
    firewallBouncer.enable = true;
    enrolTokenFile = "/run/secrets/token";
    identityToken = "gce";
  };

  two-keys-one-credential = {
    systemd.services.consumer = consumer;
    services.lapidary = {
      inherit brokerUrl;
      keys.a.unit = "consumer";
      keys.b.unit = "consumer";
    };
  };

  two-keys-one-bouncer = {
    systemd.services.caddy = consumer;
    services.lapidary = {
      inherit brokerUrl;
      firewallBouncer.enable = true;
      keys.caddy.bouncer = "web-1";
    };
  };

  no-such-unit.services.lapidary = {
    inherit brokerUrl;
    keys.caddy = { };
  };

  packaged-unit = {
    systemd.services.caddy.overrideStrategy = "asDropin";
    services.lapidary = {
      inherit brokerUrl;
      keys.caddy = { };
    };
  };

  oneshot = {
    systemd.services.job.serviceConfig = {
      Type = "oneshot";
      ExecStart = "/my/job";
    };
    services.lapidary = {
      inherit brokerUrl;
      keys.job = { };
    };
  };

  oneshot-on-failure = {
    systemd.services.job.serviceConfig = {
      Type = "oneshot";
      ExecStart = "/my/job";
      Restart = "on-failure";
    };
    services.lapidary = {
      inherit brokerUrl;
      keys.job = { };
    };
  };

  no-host-key.services = {
    openssh.enable = false;
    lapidary = {
      inherit brokerUrl;
      firewallBouncer.enable = true;
    };
  };

  other-host-keys.services = {
    openssh.hostKeys = [
      {
        type = "rsa";
        path = "/persist/ssh/rsa";
      }
      {
        type = "ed25519";
        path = "/persist/ssh/ed25519";
      }
    ];
    lapidary = {
      inherit brokerUrl;
      firewallBouncer.enable = true;
    };
  };

  # One image of many instances.
  nameless = {
    networking.hostName = "";
    systemd.services.caddy = consumer;
    services.lapidary = {
      inherit brokerUrl;
      identityToken = "gce";
      firewallBouncer.enable = true;
      keys.caddy = { };
    };
  };

  nftables-without-nftables.services = {
    crowdsec-firewall-bouncer.settings.mode = "nftables";
    lapidary = {
      inherit brokerUrl;
      firewallBouncer.enable = true;
    };
  };

  unknown-action.services = {
    crowdsec-firewall-bouncer.settings.deny_action = "TARPIT";
    lapidary = {
      inherit brokerUrl;
      firewallBouncer.enable = true;
    };
  };

  own-rules = {
    networking.nftables.enable = true;
    services.lapidary = {
      inherit brokerUrl;
      firewallBouncer = {
        enable = true;
        createRulesets = false;
      };
    };
  };

  bouncers-own-tables = {
    networking.nftables.enable = true;
    services = {
      crowdsec-firewall-bouncer.settings.nftables = {
        ipv4.set-only = false;
        ipv6.enabled = false;
      };
      lapidary = {
        inherit brokerUrl;
        firewallBouncer = {
          enable = true;
          hooks = [
            "input"
            "forward"
          ];
        };
      };
    };
  };

  # As the users of kampka/nix-flake-crowdsec have it.
  without-broker.services = {
    crowdsec.enable = true;
    lapidary.crowdsec = {
      enable = true;
      journal = true;
    };
  };

  own-package.services = {
    crowdsec = {
      enable = true;
      package = {
        type = "derivation";
        name = "my-crowdsec";
        outPath = "/nix/store/00000000000000000000000000000000-my-crowdsec";
      };
    };
    lapidary.crowdsec.enable = true;
  };

  database-password = {
    systemd.services.crowdsec.serviceConfig.EnvironmentFile = "/run/secrets/crowdsec-database";
    services = {
      crowdsec.enable = true;
      lapidary = {
        inherit brokerUrl;
        engine.enable = true;
      };
    };
  };

  plain-http.services.lapidary = {
    brokerUrl = "http://lapidary.example.net";
    firewallBouncer.enable = true;
  };

  loopback.services.lapidary = {
    brokerUrl = "http://127.0.0.1:8787";
    firewallBouncer.enable = true;
  };

  secret-setting.services.lapidary.server = {
    enable = true;
    settings.OPERATOR_TOKEN = "in the store";
  };

  unknown-setting.services.lapidary.server = {
    enable = true;
    settings.SYNC_INTERVAL = 5;
  };

  unknown-secret.services.lapidary.server = {
    enable = true;
    secretFiles.OPERATOR = "/run/secrets/operator";
  };

  open-server.services.lapidary.server = {
    enable = true;
    address = "0.0.0.0";
    openFirewall = true;
  };

  low-port.services.lapidary.server = {
    enable = true;
    port = 443;
    settings.SYNC_INTERVAL_SECONDS = 5;
    settings.OPERATOR_ISSUERS = [ { issuer = "https://issuer.example"; } ];
  };

  engine-without-engine.services.lapidary = {
    inherit brokerUrl;
    engine.enable = true;
  };

  machine-without-crowdsec.services.lapidary = {
    inherit brokerUrl;
    machine.enable = true;
  };

  machine-and-engine.services = {
    crowdsec.enable = true;
    lapidary = {
      inherit brokerUrl;
      engine.enable = true;
      machine.enable = true;
    };
  };

  plain-http-machine.services = {
    crowdsec.enable = true;
    lapidary = {
      brokerUrl = "http://lapidary.example.net";
      machine.enable = true;
    };
  };

  ipset.services = {
    lapidary = {
      inherit brokerUrl;
      firewallBouncer.enable = true;
    };
    crowdsec-firewall-bouncer.settings.mode = "ipset";
  };

  beside-an-engine.services = {
    crowdsec.enable = true;
    lapidary = {
      inherit brokerUrl;
      firewallBouncer.enable = true;
    };
  };

  router = {
    networking.nftables.enable = true;
    services = {
      crowdsec-firewall-bouncer.settings = {
        blacklists_ipv4 = "bans";
        deny_action = "REJECT";
        deny_log = true;
        nftables.ipv6.priority = -10;
      };
      lapidary = {
        inherit brokerUrl;
        firewallBouncer = {
          enable = true;
          hooks = [
            "input"
            "forward"
          ];
        };
      };
    };
  };

  any-consumer = {
    systemd.services.my-bouncer.serviceConfig.ExecStart = "/my/bouncer --key-file %d/api-key";
    services.lapidary.keys.mine = {
      brokerUrl = "https://lapidary.example.net/lapi";
      unit = "my-bouncer";
      credential = "api-key";
      host = "web-9";
      identityToken = "gce";
      renewEvery = "1d";
    };
  };
}
