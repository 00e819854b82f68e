# An engine behind Lapidary, and two bouncers: the firewall of the same host, and another service's own.
#   PUT /api/v1/hosts/engine-1 {"public_key": "…", "engine": true, "bouncers": ["engine-1", "engine-1-proxy"]}
# Lapidary's UPSTREAM_URL leads to this engine (a tunnel, mTLS); the key for it comes from here.
{
  networking.hostName = "engine-1";
  services.openssh.enable = true;

  services.crowdsec = {
    enable = true;
    autoUpdateService = true;
    hub.collections = [ "crowdsecurity/linux" ];
    localConfig.acquisitions = [
      {
        source = "journalctl";
        journalctl_filter = [ "_SYSTEMD_UNIT=sshd.service" ];
        labels.type = "syslog";
      }
    ];
    # nixpkgs leaves the engine's LAPI off, and it does not start without these two.
    settings = {
      general.api.server.enable = true;
      lapi.credentialsFile = "/var/lib/crowdsec/local_api_credentials.yaml";
    };
  };

  services.lapidary = {
    brokerUrl = "https://lapidary.example.net";
    crowdsec.journal = true;
    engine = {
      enable = true;
      consoleTokenFile = "/run/secrets/crowdsec-console";
    };
    firewallBouncer.enable = true;
    keys.proxy.unit = "my-proxy";
  };

  systemd.services.my-proxy.serviceConfig.ExecStart = "/run/current-system/sw/bin/my-proxy --crowdsec-key-file %d/lapidary-key";
}
