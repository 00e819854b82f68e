# Configurations that must be refused or warned of, and a few that must do something particular. test/nix/ says what.
let
  brokerUrl = "https://lapidary.example.net";
in
{
  no-broker.services.lapidary.firewallBouncer.enable = true;

  two-introductions.services.lapidary = {
    inherit brokerUrl;
    firewallBouncer.enable = true;
    enrolTokenFile = "/run/secrets/token";
    identityToken = "gce";
  };

  two-keys-one-credential.services.lapidary = {
    inherit brokerUrl;
    keys.a.unit = "consumer";
    keys.b.unit = "consumer";
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
      crowdsec-firewall-bouncer.settings.blacklists_ipv4 = "bans";
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
