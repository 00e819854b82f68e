# Evaluates NixOS configurations with nixpkgs' `lib` alone. A package is a made-up store path; a script keeps its text
# between the two brackets, for whoever writes the units out (test/nix/).
let
  lib = import (builtins.getEnv "NIXPKGS_LIB");

  package = name: {
    type = "derivation";
    inherit name;
    outPath = "/nix/store/00000000000000000000000000000000-${name}";
    meta.mainProgram = name;
  };
  script =
    name: text:
    package name
    // {
      outPath = "⟦${builtins.toJSON { inherit name text; }}⟧";
    };
  pkgs =
    lib.genAttrs [
      "coreutils"
      "crowdsec"
      "curl"
      "gnugrep"
      "jq"
      "nixfmt"
      "nixfmt-tree"
      "nodejs"
      "openssh"
      "shellcheck"
    ] package
    // {
      inherit lib;
      runtimeShell = "/bin/sh";
      callPackage = lib.callPackageWith pkgs;
      writeShellScript = name: text: (script name "#!/usr/bin/env bash\n${text}").outPath;
      writeShellApplication = { name, ... }: package name;
      symlinkJoin = { name, ... }: package name;
      buildNpmPackage = { pname, ... }: package pname;
      autoPatchelfHook = package "hook";
      makeWrapper = package "hook";
      stdenv.cc.cc.lib = package "libc++";
      stdenv.hostPlatform.system = "x86_64-linux";
      mkShell = _: package "shell";
      runCommand = name: _: _: package name;
      writeText = name: _: package name;
      testers.runNixOSTest = test: package (import test).name;
      importNpmLock = {
        __functor = _: _: package "npm-deps";
        npmConfigHook = package "hook";
      };
    };
in
rec {
  inherit lib pkgs;

  evaluate =
    main: modules:
    (lib.evalModules {
      specialArgs = { inherit main pkgs; };
      modules = [
        ./stand-in.nix
        ../modules
        {
          systemd.package = package "systemd";
          # Evaluated without nixpkgs there is no package to build.
          services.lapidary.server.package = lib.mkDefault (package "lapidary");
        }
      ]
      ++ modules;
    }).config;

  # What an operator would be told, and what the host would run.
  report = reportOn "general";
  reportOn =
    main: modules:
    let
      config = evaluate main modules;
      refusals = map (each: each.message) (lib.filter (each: !each.assertion) config.assertions);
    in
    {
      inherit refusals;
      inherit (config) warnings;
    }
    // lib.optionalAttrs (refusals == [ ]) {
      inherit (config.systemd) services timers;
      inherit (config.networking.nftables) tables;
      firewallBouncer = config.services.crowdsec-firewall-bouncer.settings;
      crowdsec = config.services.crowdsec.settings;
      ports = config.networking.firewall.allowedTCPPorts;
    };

  # An example is one host's module, or an attribute set of several hosts'.
  examples = lib.concatMapAttrs (
    file: _:
    let
      name = lib.removeSuffix ".nix" file;
      content = import (../examples + "/${file}");
    in
    if lib.isFunction content || content ? services then
      { ${name} = report [ content ]; }
    else
      lib.mapAttrs' (host: module: lib.nameValuePair "${name}-${host}" (report [ module ])) content
  ) (builtins.readDir ../examples);

  # The flake's outputs, with each package by its name.
  flake =
    let
      self = (import ../../flake.nix).outputs {
        inherit self;
        nixpkgs = {
          inherit lib;
          legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: pkgs);
        };
      };
      names = lib.mapAttrs (_: lib.mapAttrs (_: built: built.name));
    in
    {
      inherit (self) nixosModules;
      packages = names self.packages;
      checks = names self.checks;
      devShells = names self.devShells;
      formatter = lib.mapAttrs (_: built: built.name) self.formatter;
      overlay = lib.mapAttrs (_: built: built.name) (self.overlays.default pkgs { });
    };

  cases = lib.mapAttrs (_: module: report [ module ]) (import ./cases.nix);
}
