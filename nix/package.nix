# Lapidary as a package: the built Worker, workerd, and `lapidary`, which is `npm start` with Nix's programs.
# Sources and their hashes are package-lock.json's, so nothing here has to follow an update.
{
  autoPatchelfHook,
  buildNpmPackage,
  importNpmLock,
  lib,
  makeWrapper,
  nodejs,
  stdenv,
}:
let
  root = ../.;
  manifest = lib.importJSON ../package.json;
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

  npmDeps = importNpmLock { npmRoot = root; };
  npmConfigHook = importNpmLock.npmConfigHook;
  # The packages' own scripts run programs that are not patched yet.
  npmFlags = [ "--ignore-scripts" ];
  npmRebuildFlags = [ "--ignore-scripts" ];
  nativeBuildInputs = [
    autoPatchelfHook
    makeWrapper
  ];
  buildInputs = [ stdenv.cc.cc.lib ];

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
