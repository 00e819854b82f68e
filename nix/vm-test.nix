# A server and a host as virtual machines, for those with a builder (`nix flake check`): the host has its SSH host key
# and the broker's address, and enforces a ban; a rotation reaches it; it boots without the broker.
{
  name = "lapidary";
  globalTimeout = 600;

  nodes = {
    edge = {
      imports = [ ./modules ];
      services.lapidary.server = {
        enable = true;
        address = "0.0.0.0";
        openFirewall = true;
        settings.PUBLIC_URL = "http://edge:8787";
      };
    };

    web =
      { pkgs, ... }:
      {
        imports = [ ./modules ];
        networking.nftables.enable = true;
        services.openssh.enable = true;
        environment.systemPackages = [ pkgs.nftables ];
        services.crowdsec-firewall-bouncer.settings.update_frequency = "1s";
        services.lapidary = {
          brokerUrl = "http://edge:8787";
          firewallBouncer.enable = true;
        };
      };
  };

  testScript = ''
    import json

    def operator(method, path, body=None):
        data = "" if body is None else f"-d '{json.dumps(body)}'"
        return edge.succeed(
            f"curl -sS --fail-with-body -X {method} -H @/var/lib/lapidary/operator-header "
            f"http://127.0.0.1:8787/api/v1{path} {data}"
        )

    def started():
        return web.succeed("systemctl show --property=InvocationID --value crowdsec-firewall-bouncer").strip()

    bouncer = "crowdsec-firewall-bouncer.service"
    fetch = "systemctl start lapidary-key@crowdsec-firewall-bouncer"
    key = "/var/lib/lapidary-key/crowdsec-firewall-bouncer/key"

    start_all()
    edge.wait_for_unit("lapidary.service")
    edge.wait_for_open_port(8787)
    web.wait_for_file("/etc/ssh/ssh_host_ed25519_key.pub")

    with subtest("a host that the broker does not know is refused, and shows it"):
        web.wait_until_succeeds("journalctl -u 'lapidary-key@*' | grep REFUSED")

    with subtest("once it is known it bootstraps itself"):
        public = web.succeed("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").strip()
        operator("PUT", "/hosts/web", {"public_key": public, "bouncers": ["web"]})
        operator("POST", "/decisions", {"value": "192.0.2.1", "duration": "4h"})
        web.wait_for_unit(bouncer)
        web.wait_until_succeeds("nft list set ip crowdsec crowdsec-blacklists | grep 192.0.2.1")

    with subtest("nothing new, no restart; a rotation, one restart"):
        before, first = started(), web.succeed(f"sha256sum {key}")
        web.succeed(fetch)
        assert started() == before
        operator("POST", "/bouncers/web/rotate", {})
        web.succeed(fetch)
        web.wait_for_unit(bouncer)
        assert started() != before and web.succeed(f"sha256sum {key}") != first
        web.wait_until_succeeds("nft list set ip crowdsec crowdsec-blacklists | grep 192.0.2.1")

    with subtest("it starts from its cached key when the broker is away"):
        edge.succeed("systemctl stop lapidary")
        web.shutdown()
        web.start()
        web.wait_until_succeeds("journalctl -b -u 'lapidary-key@*' | grep 'goes on with the key that it has'")
        edge.succeed("systemctl start lapidary")
        web.wait_for_unit(bouncer)
        web.wait_until_succeeds("nft list set ip crowdsec crowdsec-blacklists | grep 192.0.2.1")
  '';
}
