{
  description = "Lapidary: a CrowdSec Local API at the edge, and NixOS modules whose hosts bootstrap themselves";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      # Imported by path, so that a module that is imported twice counts once and errors name a file; in a set, since an
      # older `nix flake check` takes no path for a module.
      nixosModules = lib.mapAttrs (_: path: { imports = [ path ]; }) {
        lapidary-keys = ./nix/modules/lapidary-keys.nix;
        crowdsec-firewall-bouncer = ./nix/modules/crowdsec-firewall-bouncer.nix;
        crowdsec = ./nix/modules/crowdsec.nix;
        lapidary = ./nix/modules/lapidary.nix;
        default = ./nix/modules;
      };

      overlays.default = final: _: {
        lapidary = final.callPackage ./nix/package.nix { };
        lapidary-key = final.callPackage ./nix/client.nix { };
      };

      packages = eachSystem (pkgs: rec {
        lapidary = pkgs.callPackage ./nix/package.nix { };
        lapidary-key = pkgs.callPackage ./nix/client.nix { };
        default = lapidary;
      });

      # With the folders of an ordinary Linux: the programs that npm installs (node, workerd, esbuild) look for them there.
      devShells = eachSystem (pkgs: {
        default =
          (pkgs.buildFHSEnv {
            name = "lapidary-shell";
            targetPkgs = pkgs: [
              pkgs.jq
              pkgs.nixfmt
              pkgs.nodejs
              pkgs.openssh
              pkgs.shellcheck
            ];
            profile = "export NIXPKGS_LIB=${nixpkgs}/lib";
          }).env;
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);

      checks = eachSystem (
        pkgs:
        self.packages.${pkgs.stdenv.hostPlatform.system}
        // {
          options = pkgs.runCommand "lapidary-options" { } ''
            diff -u ${./nix/options.md} ${pkgs.writeText "options.md" (import ./nix/option-docs.nix { inherit lib; })}
            touch "$out"
          '';
          vm = pkgs.testers.runNixOSTest ./nix/vm-test.nix;
        }
      );
    };
}
