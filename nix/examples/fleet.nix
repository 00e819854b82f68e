# Three hosts that the broker does not know yet. They share one enrolment token, made for ten minutes' work:
#   POST /api/v1/enrolments {"hosts": "web-*", "max_hosts": 3, "expires_in": "1h"}
# and put on each host by whatever carries secrets there. After the first boot the token is worth nothing, and may go.
let
  host = name: {
    networking.hostName = name;
    services.openssh.enable = true;

    services.lapidary = {
      brokerUrl = "https://lapidary.example.net";
      enrolTokenFile = "/run/secrets/lapidary-enrolment";
      firewallBouncer.enable = true;
    };
  };
in
{
  web-1 = host "web-1";
  web-2 = host "web-2";
  web-3 = host "web-3";
}
