# Lapidary as a package: the built Worker, workerd, and `lapidary`, which is `npm start` with Nix's programs.
# Versions and hashes are package-lock.json's, so nothing here has to follow an update.
{
  autoPatchelfHook,
  buildNpmPackage,
  importNpmLock,
  lib,
  makeWrapper,
  nodejs,
  pnpm ? null,
  pnpm_9 ? null,
  pnpm_10 ? null,
  # Where npm's packages come from. The lock file does not say it; nixpkgs does, of a pnpm that is one of them.
  registry ?
    let
      urls = map (pnpm: pnpm.src.url or "") [
        pnpm_10
        pnpm_9
        pnpm
      ];
      parts = lib.splitString "/pnpm/-/" (lib.findFirst (lib.hasInfix "/pnpm/-/") "" urls);
    in
    if lib.length parts == 2 then
      lib.head parts
    else
      throw "lapidary: nixpkgs' pnpm does not say where npm's packages are; override `registry` with the registry's address",
}:
let
  root = ../.;
  manifest = lib.importJSON ../package.json;
  lock = lib.importJSON ../package-lock.json;

  # importNpmLock fetches what has an address, and leaves out what has none.
  withAddress =
    path: module:
    let
      name = module.name or (lib.last (lib.splitString "node_modules/" path));
    in
    module
    // lib.optionalAttrs (module ? integrity) {
      resolved = "${registry}/${name}/-/${baseNameOf name}-${module.version}.tgz";
    };
in
buildNpmPackage {
  pname = manifest.name;
  inherit (manifest) version;
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      ../migrations
      ../package-lock.json
      ../package.json
      ../scripts
      ../src
      ../tsconfig.json
      ../wrangler.toml
    ];
  };

  npmDeps = importNpmLock {
    package = manifest;
    packageLock = lock // {
      packages = lib.mapAttrs withAddress lock.packages;
    };
  };
  npmConfigHook = importNpmLock.npmConfigHook;
  # The packages' own scripts run programs that are not patched yet.
  npmFlags = [ "--ignore-scripts" ];
  npmRebuildFlags = [ "--ignore-scripts" ];
  nativeBuildInputs = [
    autoPatchelfHook
    makeWrapper
  ];

  buildPhase = ''
    runHook preBuild
    node scripts/build.mjs
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    app=$out/lib/lapidary
    mkdir -p "$app/scripts" "$app/node_modules/@cloudflare"
    cp -r dist package.json "$app"
    cp scripts/{disk,lock,processes,start}.mjs "$app/scripts"
    # Everything else is bundled into dist.
    cp -r node_modules/workerd "$app/node_modules"
    cp -r node_modules/@cloudflare/workerd-* "$app/node_modules/@cloudflare"
    makeWrapper ${lib.getExe nodejs} "$out/bin/lapidary" \
      --add-flags "$app/scripts/start.mjs"
    runHook postInstall
  '';

  meta = {
    inherit (manifest) description;
    license = lib.licenses.mit;
    mainProgram = "lapidary";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
