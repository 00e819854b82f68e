# A log processor that reports to an engine elsewhere, through Lapidary, and enforces what comes back.
#   PUT /api/v1/hosts/web-1 {"public_key": "ssh-ed25519 AAAA…", "bouncers": ["web-1"], "machine": "default"}
# Its account waits for `cscli machines validate` at the engine, unless Lapidary has the engine's registration token.
{
  networking.hostName = "web-1";
  networking.nftables.enable = true;
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
  };

  services.lapidary = {
    brokerUrl = "https://lapidary.example.net";
    firewallBouncer.enable = true;
    crowdsec.journal = true;
    machine.enable = true;
  };
}
