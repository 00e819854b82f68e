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
          default = config.host;
          defaultText = lib.literalExpression "host";
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
          type = types.externalPath;
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
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      description = "Name by which the broker knows this host.";
    };
    hostKeyFile = mkOption {
      type = types.externalPath;
      default = "/etc/ssh/ssh_host_ed25519_key";
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
        ]
        ++ shared.clientAssertions "services.lapidary.keys.${name}" key) cfg.keys
      )
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
