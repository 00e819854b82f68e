# One host with a firewall bouncer. The broker was told the host's public key:
#   PUT /api/v1/hosts/web-1 {"public_key": "ssh-ed25519 AAAA…", "bouncers": ["web-1"]}
# Nothing else is copied anywhere.
{
  networking.hostName = "web-1";
  networking.nftables.enable = true;
  services.openssh.enable = true;

  services.lapidary = {
    brokerUrl = "https://lapidary.example.net";
    firewallBouncer.enable = true;
  };
}
