# services.lapidary.keys: for any service on this host, a bouncer's key that the host makes and a Lapidary broker
# registers. The signing host key is seen by a sandboxed oneshot only, never by the consumer. A mistake here keeps a
# consumer from starting, or hands it a key that no longer works.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.lapidary;
  shared = import ./shared.nix { inherit lib; };
  fetched = import ./fetched.nix { inherit config lib pkgs; };

  keyModule =
    { name, config, ... }:
    {
      options = {
        brokerUrl = mkOption {
          type = types.nullOr shared.url;
          default = cfg.brokerUrl;
          defaultText = lib.literalExpression "config.services.lapidary.brokerUrl";
          example = "https://lapidary.example.net";
          description = "Address of the broker, as the broker itself knows it: it is part of what is signed.";
        };
        host = mkOption {
          type = shared.name;
          default = cfg.host;
          defaultText = lib.literalExpression "config.services.lapidary.host";
          description = "Name by which the broker knows this host.";
        };
        bouncer = mkOption {
          type = shared.name;
          default = if name == "crowdsec-firewall-bouncer" then config.host else "${config.host}-${name}";
          defaultText = lib.literalExpression ''
            if it is the firewall bouncer's then host else "''${host}-<name>"
          '';
          description = "Name of the bouncer whose key this is. The host must own it, or its enrolment token must name it.";
        };
        unit = mkOption {
          type = types.strMatching "[A-Za-z0-9:_.@-]+";
          default = name;
          defaultText = lib.literalMD "the attribute's name";
          example = "my-bouncer";
          description = ''
            Name, without `.service`, of the service that uses the key. It gets the credential, starts only with a key
            and is restarted when the key changes.
          '';
        };
        credential = mkOption {
          type = types.strMatching "[A-Za-z0-9_.-]+";
          default = "lapidary-key";
          description = "Name of the credential: the service reads the key from `$CREDENTIALS_DIRECTORY/<credential>`, or `%d/<credential>` in its unit.";
        };
        hostKeyFile = mkOption {
          type = types.nullOr types.externalPath;
          default = cfg.hostKeyFile;
          defaultText = lib.literalExpression "config.services.lapidary.hostKeyFile";
          description = "SSH host key that signs. It must be in OpenSSH's own format, as those that NixOS makes are.";
        };
        enrolTokenFile = mkOption {
          type = types.nullOr types.externalPath;
          default = cfg.enrolTokenFile;
          defaultText = lib.literalExpression "config.services.lapidary.enrolTokenFile";
          example = "/run/secrets/lapidary-enrolment";
          description = ''
            File with an enrolment token (`cse_…`), for a host whose public key the broker was not told. It is read at
            first contact only, and may be gone afterwards.
          '';
        };
        identityToken = mkOption {
          type = types.nullOr (types.either (types.enum [ "gce" ]) types.externalPath);
          default = cfg.identityToken;
          defaultText = lib.literalExpression "config.services.lapidary.identityToken";
          example = "gce";
          description = ''
            Instead of an enrolment token: a file with an OIDC token that proves which cloud instance this is, or `gce`
            to ask Google's metadata service for one.
          '';
        };
        renewEvery = mkOption {
          type = shared.timeSpan;
          default = "1h";
          example = "10min";
          description = ''
            How often the broker is asked whether a new key is wanted: so soon a rotation reaches this host. Each host
            adds its own, constant share of a quarter of this time.
          '';
        };
        waitSeconds = mkOption {
          type = types.ints.between 1 60;
          default = 30;
          description = ''
            How long a start of the service waits for the broker. After that it goes on with the key that it has, or
            fails and is tried again. It is a part of what systemd gives the whole start, 90 s by default, and must
            leave the rest.
          '';
        };
        keyFile = mkOption {
          type = types.str;
          readOnly = true;
          default = "/var/lib/lapidary-key/${name}/key";
          defaultText = lib.literalExpression ''"/var/lib/lapidary-key/<name>/key"'';
          description = "Where the key is kept; only root can read it. For options of other modules that want a path.";
        };
      };
    };

  fetch =
    name: key:
    key
    // {
      fetcher = "lapidary-key@${name}";
      description = "Key of the bouncer ${key.bouncer} for ${key.unit}.service";
      file = "key";
      arguments = [
        "--bouncer"
        key.bouncer
      ];
      unset = "unset";
      isUnset = "there is no key yet";
      place = lib.mkBefore;
    };

  bouncerOf =
    name:
    let
      key = cfg.keys.${name};
    in
    "${toString key.brokerUrl} ${key.host} ${key.bouncer}";

  isUnit =
    name:
    let
      service = config.systemd.services.${name};
    in
    service.serviceConfig ? ExecStart || service.overrideStrategy == "asDropin";

  mayRestart =
    name:
    let
      service = config.systemd.services.${name}.serviceConfig;
    in
    service.Type or "simple" == "oneshot" -> service.Restart == "on-failure" || service.Restart == "no";
in
{
  options.services.lapidary = {
    brokerUrl = mkOption {
      type = types.nullOr shared.url;
      default = null;
      example = "https://lapidary.example.net";
      description = "Address of the broker for everything on this host that does not name another.";
    };
    host = mkOption {
      type = shared.name;
      default = if config.networking.hostName == "" then "%H" else config.networking.hostName;
      defaultText = lib.literalExpression ''
        if config.networking.hostName == "" then "%H" else config.networking.hostName
      '';
      example = "%l";
      description = ''
        Name by which the broker knows this host. `%H` is the name that the machine has when it asks, and `%l` that name
        up to its first dot: for one image of many instances.
      '';
    };
    hostKeyFile = mkOption {
      type = types.nullOr types.externalPath;
      default =
        let
          inherit (config.services.openssh) enable hostKeys;
          keys = lib.filter (key: key.type == "ed25519") hostKeys ++ hostKeys;
        in
        if enable && keys != [ ] then (lib.head keys).path else null;
      defaultText = lib.literalMD "the first ed25519 key of `services.openssh.hostKeys`, or else the first key, where sshd is enabled";
      description = "SSH host key that signs this host's requests.";
    };
    enrolTokenFile = mkOption {
      type = types.nullOr types.externalPath;
      default = null;
      example = "/run/secrets/lapidary-enrolment";
      description = "File with an enrolment token, for a host whose public key the broker was not told.";
    };
    identityToken = mkOption {
      type = types.nullOr (types.either (types.enum [ "gce" ]) types.externalPath);
      default = null;
      example = "gce";
      description = "Instead of an enrolment token: a file with an OIDC token of this instance, or `gce`.";
    };
    clientPackage = mkOption {
      type = types.package;
      default = pkgs.callPackage ../client.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./client.nix { }";
      description = "The client that makes, signs and registers keys.";
    };
    keys = mkOption {
      type = types.attrsOf (types.submodule keyModule);
      default = { };
      example = lib.literalExpression ''
        {
          my-bouncer.brokerUrl = "https://lapidary.example.net";
        }
      '';
      description = "Bouncers' keys for services on this host, one for each service that needs one.";
    };
  };

  config = lib.mkIf (cfg.keys != { }) {
    assertions =
      lib.concatLists (
        lib.mapAttrsToList (name: key: [
          {
            assertion = builtins.match "[A-Za-z0-9:_.-]+" name != null;
            message = "services.lapidary.keys.\"${name}\": the name becomes part of a unit's name.";
          }
          {
            assertion = isUnit key.unit;
            message = "services.lapidary.keys.${name}: there is no ${key.unit}.service. Set `unit`; for a service that a package brings set systemd.services.${key.unit}.overrideStrategy = \"asDropin\", too.";
          }
          {
            assertion = mayRestart key.unit;
            message = "services.lapidary.keys.${name}: ${key.unit}.service is of Type=oneshot, which systemd does not restart after a success. Set systemd.services.${key.unit}.serviceConfig.Restart = \"on-failure\".";
          }
        ]
        ++ shared.clientAssertions "services.lapidary.keys.${name}" key) cfg.keys
      )
      ++ lib.mapAttrsToList (_: names: {
        assertion = lib.length names == 1;
        message = "services.lapidary.keys: ${lib.concatStringsSep " and " names} are keys of one bouncer, ${cfg.keys.${lib.head names}.bouncer}; a key can be in one place only. Set `bouncer`.";
      }) (lib.groupBy bouncerOf (lib.attrNames cfg.keys))
      ++ [
        {
          assertion = lib.allUnique (lib.mapAttrsToList (_: key: "${key.unit} ${key.credential}") cfg.keys);
          message = "services.lapidary.keys: two keys for one service need different `credential` names.";
        }
      ];
    warnings = lib.concatLists (
      lib.mapAttrsToList (
        name: key:
        lib.optional (shared.isPlainHttp key.brokerUrl)
          "services.lapidary.keys.${name}.brokerUrl is plain http: the key is not sent there, but the bouncer will send it with each of its requests."
      ) cfg.keys
    );

    systemd.services = lib.mkMerge (lib.mapAttrsToList (name: key: fetched.services (fetch name key)) cfg.keys);
    systemd.timers = lib.mkMerge (lib.mapAttrsToList (name: key: fetched.timers (fetch name key)) cfg.keys);
  };
}
