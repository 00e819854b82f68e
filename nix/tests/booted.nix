# The host that test/nix/booted.test.ts boots: Debian's firewall bouncer in the place of nixpkgs', because that one
# cannot be had there. What a bouncer's unit needs from these modules is the same.
{
  networking.hostName = "web-1";
  services.openssh.enable = true;

  services.lapidary = {
    brokerUrl = "http://127.0.0.1:8080";
    keys.firewall = {
      bouncer = "web-1";
      unit = "bouncer";
      renewEvery = "1h";
      waitSeconds = 10;
    };
  };

  systemd.services.bouncer = {
    description = "Debian's firewall bouncer";
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      Type = "notify";
      DynamicUser = true;
      RuntimeDirectory = "bouncer";
      # The settings are in one file and the key, alone, in another that the bouncer merges over it.
      ExecStartPre = [ "/bin/sh -c 'cp /etc/bouncer.yaml /run/bouncer/bouncer.yaml && printf \"api_key: %%s\" \"$$(cat $$CREDENTIALS_DIRECTORY/lapidary-key)\" >/run/bouncer/bouncer.yaml.local'" ];
      ExecStart = "/usr/bin/crowdsec-firewall-bouncer -c /run/bouncer/bouncer.yaml";
      AmbientCapabilities = [ "CAP_NET_ADMIN" ];
      CapabilityBoundingSet = [ "CAP_NET_ADMIN" ];
    };
  };
}
