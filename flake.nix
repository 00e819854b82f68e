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
      # Paths, so that a module that is imported twice counts once and errors name a file.
      nixosModules = {
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

      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.jq
            pkgs.nixfmt
            pkgs.nodejs
            pkgs.openssh
            pkgs.shellcheck
          ];
          NIXPKGS_LIB = "${nixpkgs}/lib";
        };
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
