# The client as a package: writeShellApplication passes it through shellcheck at build time.
{
  coreutils,
  curl,
  jq,
  lib,
  openssh,
  writeShellApplication,
}:
writeShellApplication {
  name = "lapidary-key";
  runtimeInputs = [
    coreutils
    curl
    jq
    openssh
  ];
  text = lib.removePrefix "#!/usr/bin/env bash\n" (builtins.readFile ./lapidary-key.sh);
  meta.description = "Gets a host its bouncer's key from a Lapidary broker";
}
