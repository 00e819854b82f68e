# services.lapidary.server: Lapidary itself on this host, the built Worker on workerd, for those without a Cloudflare
# account. One writable folder, no root, secrets as credentials. A mistake here opens the operator's API to strangers.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.lapidary.server;
  shared = import ./shared.nix { inherit lib; };

  isLocal = lib.elem cfg.address [
    "127.0.0.1"
    "::1"
    "localhost"
  ];

  # Made by scripts/settings-docs.mjs from the Worker's own table.
  known = lib.importJSON ./settings.json;
  secretNames = lib.attrNames (lib.filterAttrs (_: setting: setting.secret) known);
  plain = lib.filterAttrs (_: setting: !setting.secret) known;
  unknown = lib.subtractLists (lib.attrNames known) (lib.attrNames cfg.settings);

  value =
    types.oneOf [
      types.str
      types.int
      types.bool
      (types.listOf types.anything)
      (types.attrsOf types.anything)
    ]
    // {
      description = "text, number, boolean, or list or object to be written as JSON";
    };

  # workerd takes every setting from its environment: secrets are put there by the process itself, so that neither the
  # unit nor systemd shows them.
  start = pkgs.writeShellScript "lapidary-start" ''
    set -euo pipefail
    for file in "''${CREDENTIALS_DIRECTORY:-/nonexistent}"/*; do
      [ -f "$file" ] || continue
      export "''${file##*/}=$(<"$file")"
    done
    exec ${lib.getExe cfg.package}
  '';
in
{
  options.services.lapidary.server = {
    enable = lib.mkEnableOption "Lapidary, a CrowdSec Local API that mirrors one engine and brokers bouncers' keys";
    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The built Worker with the workerd that runs it.";
    };
    address = mkOption {
      type = types.str;
      default = "127.0.0.1";
      example = "::1";
      description = "Address to listen on. It is plain http: anything but loopback wants a TLS proxy or tunnel in front.";
    };
    port = mkOption {
      type = types.port;
      default = 8787;
      description = "Port to listen on.";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Open the port in this host's firewall.";
    };
    settings = mkOption {
      default = { };
      example = {
        UPSTREAM_URL = "http://127.0.0.1:8080";
        PUBLIC_URL = "https://lapidary.example.net";
        CLIENT_ADDRESS_HEADER = "X-Real-IP";
      };
      description = "Settings by their names, but for the secret ones.";
      type = types.submodule {
        # What is no option is refused below, with a word on secrets.
        freeformType = types.attrsOf value;
        options =
          lib.mapAttrs (
            _: setting:
            mkOption {
              type = types.nullOr value;
              default = null;
              defaultText = lib.literalMD (if setting.default == null then "none" else "`${setting.default}`");
              description = setting.meaning;
            }
          ) plain
          // {
            PUBLIC_URL = mkOption {
              type = types.str;
              default = lib.optionalString isLocal "http://${
                if lib.hasInfix ":" cfg.address then "[${cfg.address}]" else cfg.address
              }:${toString cfg.port}${toString cfg.settings.PATH_PREFIX}";
              defaultText = lib.literalExpression ''
                if address is loopback then "http://''${address}:''${toString port}" else ""
              '';
              example = "https://lapidary.example.net";
              description = ''
                Address by which hosts know this server: they sign it, and it opens nothing anywhere else. A loopback
                address is good for this host alone. Empty or loopback: other hosts can register once an operator has
                called the server by the name that they use; that name is kept.
              '';
            };
          };
      };
    };
    secretFiles = mkOption {
      type = types.attrsOf types.externalPath;
      default = { };
      example = {
        UPSTREAM_API_KEY = "/run/secrets/lapidary-upstream-key";
      };
      description = ''
        Files with the secret settings (${lib.concatStringsSep ", " secretNames}), readable by root only. What is not
        given the server makes at its first start and keeps in `/var/lib/lapidary`: the operator's token and the
        bootstrap secret. An engine that runs `services.lapidary.engine` sends its own key.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = lib.all (name: !(cfg.settings ? ${name})) secretNames;
        message = "services.lapidary.server.settings would put a secret into the world-readable store: use secretFiles for ${lib.concatStringsSep ", " secretNames}.";
      }
      {
        assertion = unknown == [ ];
        message = "services.lapidary.server.settings: there is no setting ${lib.concatStringsSep ", " unknown}.";
      }
      {
        assertion = lib.all (name: lib.elem name secretNames) (lib.attrNames cfg.secretFiles);
        message = "services.lapidary.server.secretFiles knows ${lib.concatStringsSep ", " secretNames}.";
      }
    ];
    warnings =
      lib.optional (!isLocal)
        "services.lapidary.server listens on ${cfg.address} with plain http: bouncers' keys and the operator's token can be read on the way."
      ++
        lib.optional (cfg.settings.PUBLIC_URL == "")
          "services.lapidary.server.settings.PUBLIC_URL is not set: no host can register before an operator has called the server by the name that hosts use.";

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.port ];

    systemd.services.lapidary = {
      description = "Lapidary, a CrowdSec Local API";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      environment =
        lib.mapAttrs (_: value: if lib.isString value then value else builtins.toJSON value) (
          lib.filterAttrs (_: value: value != null && value != "") cfg.settings
        )
        // {
          HOST = cfg.address;
          PORT = toString cfg.port;
          STATE_DIR = "/var/lib/lapidary";
        };
      # V8 compiles at run time, so memory may become executable.
      serviceConfig = shared.sandbox // {
        ExecStart = start;
        LoadCredential = lib.mapAttrsToList (name: file: "${name}:${file}") cfg.secretFiles;
        StateDirectory = "lapidary";
        StateDirectoryMode = "0700";
        Restart = "always";
        RestartSec = "2s";
        LimitNOFILE = 65536;
        AmbientCapabilities = lib.mkIf (cfg.port < 1024) [ "CAP_NET_BIND_SERVICE" ];
        CapabilityBoundingSet = if cfg.port < 1024 then "CAP_NET_BIND_SERVICE" else "";
        PrivateUsers = cfg.port >= 1024;
      };
    };
  };
}
