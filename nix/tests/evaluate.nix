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
      "nftables"
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
      buildNpmPackage = { pname, npmDeps, ... }: package pname // { inherit npmDeps; };
      autoPatchelfHook = package "hook";
      makeWrapper = package "hook";
      stdenv.hostPlatform.system = "x86_64-linux";
      buildFHSEnv = { name, ... }: package name // { env = package "shell"; };
      runCommand = name: _: _: package name;
      writeText = name: text: (script name text).outPath;
      testers.runNixOSTest = test: package (import test).name;
      pnpm.src.url = "https://example.net/pnpm/archive/12.0.0.tar.gz";
      pnpm_10.src.url = "https://packages.example.net/pnpm/-/pnpm-10.0.0.tgz";
      importNpmLock = {
        # What nixpkgs' own reads: address and hash of each package that has an address, and the address of each that
        # package.json names.
        __functor =
          _:
          {
            npmRoot ? null,
            package ? lib.importJSON (npmRoot + "/package.json"),
            packageLock ? lib.importJSON (npmRoot + "/package-lock.json"),
          }:
          {
            fetched = lib.mapAttrs (_: module: { inherit (module) resolved integrity; }) (
              lib.filterAttrs (_: module: module ? resolved) packageLock.packages
            );
            named = lib.mapAttrs (name: _: packageLock.packages."node_modules/${name}".resolved) (
              package.dependencies // package.devDependencies
            );
          };
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
      firewallBouncer = config.services.crowdsec-firewall-bouncer.settings;
      crowdsec = config.services.crowdsec.settings;
      ports = config.networking.firewall.allowedTCPPorts;
      scraped = config.services.prometheus.scrapeConfigs;
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
      npmDeps = self.packages.x86_64-linux.lapidary.npmDeps;
      packages = names self.packages;
      checks = names self.checks;
      devShells = names self.devShells;
      formatter = lib.mapAttrs (_: built: built.name) self.formatter;
      overlay = lib.mapAttrs (_: built: built.name) (self.overlays.default pkgs { });
    };

  cases = lib.mapAttrs (
    _: module:
    report [
      { services.openssh.enable = lib.mkDefault true; }
      module
    ]
  ) (import ./cases.nix);
}
