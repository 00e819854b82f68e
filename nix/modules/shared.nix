# What the modules have in common: types of what the broker accepts, what the client needs, the fetchers' sandbox.
{ lib }:
let
  seconds =
    span:
    let
      parts = builtins.match "([0-9]+)(s|min|h|d)" span;
      units = {
        s = 1;
        min = 60;
        h = 3600;
        d = 86400;
      };
    in
    lib.toInt (builtins.head parts) * units.${builtins.elemAt parts 1};

  # For a unit that needs the network and its own state, and nothing else.
  sandbox = {
    DynamicUser = true;
    CapabilityBoundingSet = "";
    LockPersonality = true;
    NoNewPrivileges = true;
    PrivateDevices = true;
    PrivateTmp = true;
    PrivateUsers = true;
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHome = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
    RemoveIPC = true;
    # AF_UNIX: names of hosts and users are looked up through it.
    RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    # A library that tries something new is told no, not killed: V8 asks for memory protection keys.
    SystemCallErrorNumber = "EPERM";
    SystemCallFilter = [
      "@system-service"
      "~@privileged"
      "~@resources"
    ];
    UMask = "0077";
  };
in
{
  # The broker's own rule of names. %H and %l are this machine's name when it asks, whole and up to its first dot.
  name = lib.types.strMatching "(%[Hl]|[A-Za-z0-9])[A-Za-z0-9._@-]{0,63}";

  url = lib.types.strMatching "https?://[][A-Za-z0-9._~:/-]*[]A-Za-z0-9_~-]" // {
    description = "http(s) address without a slash at its end";
  };

  # Units are spelled out, so that a share of the time can be computed.
  timeSpan = lib.types.strMatching "[1-9][0-9]{0,5}(s|min|h|d)" // {
    description = "time like 30s, 10min, 1h or 1d";
  };

  inherit seconds;

  quarter = span: "${toString (seconds span / 4)}s";

  isPlainHttp = url: url != null && builtins.match "http://(127\\.0\\.0\\.1|localhost)([:/].*)?" url == null && lib.hasPrefix "http://" url;

  # Who asks, for what is not asked for under a name of its own.
  hostClient = lapidary: {
    inherit (lapidary)
      brokerUrl
      host
      hostKeyFile
      enrolTokenFile
      identityToken
      ;
  };

  # What the client can't do without; `user` is the option that wants it.
  clientAssertions = user: it: [
    {
      assertion = it.brokerUrl != null;
      message = "${user}: there is no broker; services.lapidary.brokerUrl must be set.";
    }
    {
      assertion = it.enrolTokenFile == null || it.identityToken == null;
      message = "${user}: enrolTokenFile and identityToken exclude each other.";
    }
    {
      assertion = it.hostKeyFile != null;
      message = "${user}: there is no SSH host key to sign with; enable services.openssh, or name one in services.lapidary.hostKeyFile.";
    }
  ];

  # Arguments for ExecStart=; the client itself expands a machine's name, which may come after systemd has read the unit.
  clientArguments =
    key: own:
    lib.concatMapStringsSep " " (lib.replaceStrings [ "%H" "%l" ] [ "%%H" "%%l" ]) (
      [
        "--broker"
        (toString key.brokerUrl)
        "--host"
        key.host
        "--host-key"
        "%d/host-key"
      ]
      ++ lib.optionals (key.enrolTokenFile != null) [
        "--enrol-token"
        "%d/enrol-token"
      ]
      ++ lib.optionals (key.identityToken != null) [
        "--identity-token"
        (if key.identityToken == "gce" then "gce" else "%d/identity-token")
      ]
      ++ own
    );

  clientCredentials =
    key:
    [ "host-key:${key.hostKeyFile}" ]
    ++ lib.optional (key.enrolTokenFile != null) "enrol-token:${key.enrolTokenFile}"
    ++ lib.optional (
      key.identityToken != null && key.identityToken != "gce"
    ) "identity-token:${key.identityToken}";

  # Tokens are wanted at first contact only: a host must start without them afterwards.
  clientFallbacks =
    key:
    lib.optional (key.enrolTokenFile != null) "enrol-token:unset"
    ++ lib.optional (key.identityToken != null && key.identityToken != "gce") "identity-token:unset";

  # For units that ask the broker, and sign with a host key that a first boot makes.
  brokerOrder = rec {
    wants = [
      "network-online.target"
      "sshd-keygen.service"
    ];
    after = wants ++ [ "sshd.service" ];
  };

  inherit sandbox;

  # ssh-keygen, curl and jq compile nothing.
  fetcherSandbox = sandbox // {
    MemoryDenyWriteExecute = true;
  };
}
