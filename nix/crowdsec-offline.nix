# The engine's package with a cscli that lets the engine start without a connection to the hub.
{
  crowdsec,
  lib,
  runtimeShell,
  symlinkJoin,
}:
symlinkJoin {
  name = "crowdsec-offline-${lib.getVersion crowdsec}";
  paths = [ crowdsec ];
  postBuild = ''
    rm "$out/bin/cscli"
    {
      echo '#!${runtimeShell}'
      echo 'REAL_CSCLI=${crowdsec}/bin/cscli'
      cat ${./cscli-offline.sh}
    } >"$out/bin/cscli"
    chmod 755 "$out/bin/cscli"
  '';
  inherit (crowdsec) meta;
}
