# All of Lapidary's modules. Each does nothing until it is enabled.
{
  imports = [
    ./lapidary-keys.nix
    ./crowdsec-firewall-bouncer.nix
    ./crowdsec.nix
    ./lapidary.nix
  ];
}
