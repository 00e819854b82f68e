# The host that test/nix/booted-switch.test.ts boots: sets of ours beside nixpkgs' nftables.service, whose reload is what a
# switch does, and a service that systemd gives up, as nixpkgs' Caddy and Traefik are given up.
{
  networking.hostName = "web-1";
  networking.nftables.enable = true;
  services.openssh.enable = true;

  services.lapidary = {
    brokerUrl = "http://127.0.0.1:8080";
    firewallBouncer = {
      enable = true;
      hooks = [
        "input"
        "forward"
      ];
    };
    keys.caddy.waitSeconds = 10;
  };

  systemd.services.caddy = {
    description = "Caddy";
    wantedBy = [ "multi-user.target" ];
    startLimitIntervalSec = 14400;
    startLimitBurst = 2;
    serviceConfig = {
      Restart = "on-failure";
      ExecStart = "/usr/bin/sleep infinity";
    };
  };
}
