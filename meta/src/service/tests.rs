mod rig;
mod sessions;
