# Lapidary itself on a NixOS host, beside the engine that it mirrors. A TLS proxy leads to port 8787.
# The operator's token is made at the first start: `cat /var/lib/lapidary/operator-token` as root.
{
  networking.hostName = "edge-1";

  services.lapidary.server = {
    enable = true;
    settings = {
      UPSTREAM_URL = "http://127.0.0.1:8080";
      PUBLIC_URL = "https://lapidary.example.net";
      CLIENT_ADDRESS_HEADER = "X-Real-IP";
    };
    secretFiles.UPSTREAM_API_KEY = "/run/secrets/lapidary-upstream-key";
  };
}
